"""`make bench`: BlobHub beside the bare machine, in one run, as ratios. Aims are those of docs/architecture.md.

`python -m benchmarks [PART] [--due N] [--stored N] [--waiting N] [--mebibytes N]`, with one of imports, calls, tasks,
schedules, waiting and models; all, in full size, unless told otherwise.

Nothing here fails: a benchmark tells, it does not judge.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import flows
import grpc
import psutil
import uvloop
from benchmarks import imports, models, schedules, waiting, workers
from benchmarks.measuring import alternating
from benchmarks.own_cost import own_cost
from benchmarks.refusing import CALLS, refusing
from benchmarks.rows import row, spread
from benchmarks.serving import serving
from blobhub.v1 import blob_pb2, execution_pb2, session_pb2
from served import Api

FREE_PORTS = {"BLOBHUB_LISTEN": "127.0.0.1:0", "BLOBHUB_HTTP_LISTEN": "127.0.0.1:0"}
PARTS = ("imports", "calls", "tasks", "schedules", "waiting", "models")
SUBSCRIBERS = 100
EVENTS = 12 * 400
"""How many events each subscriber gets: twelve of an execution."""
EVENTS_A_MESSAGE = 32


async def reads(api: Api, bare: grpc.aio.Channel) -> None:
    empty = bare.unary_unary("/bare/Empty")
    request = blob_pb2.GetBlobRequest(blob="acme/pipeline")
    for in_flight in (1, 64):
        ours, theirs, took = await alternating(lambda: api.blobs.GetBlob(request), lambda: empty(b""), in_flight)
        row(
            f"GetBlob, {in_flight} in flight",
            f"{ours:,.0f}/s",
            f"{ours / theirs:.0%} of an empty call ({theirs:,.0f}/s)",
        )
        row("", spread(took))


async def executions(api: Api, bare: grpc.aio.Channel, session_id: str, name: str, definition: str) -> None:
    loop = bare.unary_stream("/bare/Run", response_deserializer=execution_pb2.RunExecutionResponse.FromString)

    async def ours() -> None:
        request = execution_pb2.RunExecutionRequest(session=session_id, spec={"definition": definition})
        last = None
        async for message in api.executions.RunExecution(request):
            last = message
        assert last is not None
        assert last.execution.state == execution_pb2.EXECUTION_STATE_COMPLETED

    async def theirs() -> None:
        async for _ in loop(b""):
            pass

    for in_flight in (1, 32):
        mine, base, took = await alternating(ours, theirs, in_flight)
        row(
            f"{name}, {in_flight} in flight",
            f"{mine:,.0f}/s",
            f"{mine / base:.0%} of the bare loop ({base:,.0f}/s)",
        )
        row("", spread(took))


async def fan_out(api: Api, bare: str, session_id: str) -> None:
    """Deliver one session's live events to many subscribers, and as many bytes without BlobHub.

    A message holds more events the further a subscriber is behind; the yardstick's messages hold a fixed number.
    """
    ours, theirs, sizes = [], [], []
    for _ in range(3):
        figure, size = await _watched(api, session_id)
        ours.append(figure)
        sizes.append(size)
        theirs.append(await _streamed(bare, size * EVENTS_A_MESSAGE))
    mine, base = statistics.median(ours), statistics.median(theirs)
    row(
        f"events to {SUBSCRIBERS} subscribers, {statistics.median(sizes):.0f} bytes each",
        f"{mine:,.0f}/s",
        f"{mine / base:.0%} of a raw stream loop ({base:,.0f}/s)",
    )


async def _watched(api: Api, session_id: str) -> tuple[float, int]:
    """Events a second that subscribers got while executions ran, and the mean size of an event in bytes."""
    session = await api.sessions.GetSession(session_pb2.GetSessionRequest(session=session_id))
    after = session.session.last_session_sequence
    target = after + EVENTS
    received = 0

    async def subscriber() -> None:
        nonlocal received
        request = session_pb2.WatchSessionRequest(session=session_id, after_session_sequence=after)
        call = api.sessions.WatchSession(request)
        async for message in call:
            received += message.ByteSize()
            if message.events and message.events[-1].session_sequence >= target:
                call.cancel()
                return

    async def producer() -> None:
        request = execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "five-steps"})
        for _ in range(EVENTS // 12 // 16):
            await asyncio.gather(*(api.executions.StartExecution(request) for _ in range(16)))

    start = time.perf_counter()
    watching = [asyncio.create_task(subscriber()) for _ in range(SUBSCRIBERS)]
    await producer()
    await asyncio.gather(*watching)
    return EVENTS * SUBSCRIBERS / (time.perf_counter() - start), received // (EVENTS * SUBSCRIBERS)


async def _streamed(bare: str, size: int) -> float:
    """Events a second of the raw loop, in messages of a size.

    Nobody parses its messages, so ours is held against more than it could be.
    """
    async with grpc.aio.insecure_channel(bare) as channel:
        call = channel.unary_stream("/bare/Stream")

        async def reader() -> None:
            async for message in call(f"{EVENTS // EVENTS_A_MESSAGE} {size}".encode()):
                len(message)

        start = time.perf_counter()
        await asyncio.gather(*(reader() for _ in range(SUBSCRIBERS)))
        return EVENTS * SUBSCRIBERS / (time.perf_counter() - start)


async def refusals(api: Api, address: str) -> None:
    """How well an outsider can tell what is absent from what is forbidden by the time that the refusal takes."""
    for name, (absent, forbidden, absent_too, forbidden_too) in await refusing(api, address):
        figure = f"{absent:.2f} and {forbidden:.2f} ms"
        noise = f"noise {absent / absent_too:.3f}, {forbidden / forbidden_too:.3f}"
        ratio = (absent + absent_too) / (forbidden + forbidden_too)
        row(f"absent and forbidden, {name} parent, {CALLS} each", figure, f"{ratio:.3f}, {noise}")


async def own_costs(folder: Path) -> None:
    took = await own_cost(folder, f"sqlite:///{folder}/blobhub.db")
    row("GetBlob without gRPC", f"{statistics.median(took):.0f} µs", f"least of {len(took)} rounds {min(took):.0f} µs")


def start_up(data_dir: Path) -> None:
    """From the command to serving, and the memory of a server that has nothing to do."""
    environment = os.environ | {"BLOBHUB_DATA_DIR": str(data_dir)} | FREE_PORTS
    command = [str(Path(sys.executable).parent / "blobhub-server"), "serve"]
    took, memory = [], 0.0
    for _ in range(5):
        start = time.perf_counter()
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            for line in process.stdout or ():
                if "serves on" in line:
                    break
            took.append(time.perf_counter() - start)
            time.sleep(1)
            memory = psutil.Process(process.pid).memory_info().rss / 1e6
            process.terminate()
    row("start to serving (aim 1.5 s)", f"{statistics.median(took):.2f} s")
    row("idle memory (aim 150 MB)", f"{memory:.0f} MB")


async def calls() -> None:
    with tempfile.TemporaryDirectory() as folder:
        start_up(Path(folder) / "start")
        await own_costs(Path(folder) / "own")
        async with serving(Path(folder) / "data") as server:
            api, bare = server.api, server.bare
            session_id = await api.session(flows.steps(3), alias="five-steps")
            await api.put(flows.scripts(), alias="three-scripts")
            await reads(api, bare)
            await refusals(api, server.address)
            await executions(api, bare, session_id, "5-step executions (evaluated in place)", "five-steps")
            await executions(api, bare, session_id, "5-step executions, 3 of them scripts", "three-scripts")
            await fan_out(api, server.bare_address, session_id)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("part", nargs="?", choices=PARTS, help="what to measure; all unless told")
    parser.add_argument("--due", type=int, help="how many schedules are due at once, or executions within ten seconds")
    parser.add_argument("--stored", type=int, default=1_000_000, help="how many schedules are stored")
    parser.add_argument("--waiting", type=int, default=100_000, help="how many executions wait")
    parser.add_argument("--mebibytes", type=int, default=128, help="how large the model is that is sent and fetched")
    told = parser.parse_args()
    parts = [told.part] if told.part else PARTS
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed server is compiled once and not at each start
    if "imports" in parts:
        imports.main()
    if "calls" in parts:
        await calls()
    if "tasks" in parts:
        with tempfile.TemporaryDirectory() as folder:
            await workers.main(Path(folder) / "data")
    if "schedules" in parts:
        with tempfile.TemporaryDirectory() as folder:
            # PostgreSQL runs as another user, who has to get in.
            Path(folder).chmod(0o755)
            await schedules.main(Path(folder), schedules.Sizes(due=told.due or 10_000, stored=told.stored))
    if "waiting" in parts:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            await waiting.main(Path(folder), waiting.Sizes(waiting=told.waiting, due=told.due or 1_000))
    if "models" in parts:
        with tempfile.TemporaryDirectory() as folder:
            await models.main(Path(folder), told.mebibytes << 20)


if __name__ == "__main__":
    uvloop.run(main())
