"""Reads that grow with the data hold up nobody: no callback of the event loop takes more than 20 ms of its thread's CPU.

What is measured is CPU and not time, so the machine may be as busy as it likes.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import acme
import flows
import pytest
from blobhub.v1 import blob_pb2, session_pb2
from calling import ask
from figures import Figure
from meter import Meter, MeteredServer, Reading, hold_the_bound
from multiplied import lengthen_log, multiply_blob
from scale import scaled
from served import Api, connected, served
from waiting import until

EVENTS = scaled(100_000, least=5_000)
BLOBS = scaled(50_000, least=3_000)
RARE = "processor.waiting"
RARELY = 5_000


@dataclass
class Large:
    """A metered server with much in it: many blobs of an organization, and a session with a long log."""

    server: MeteredServer
    api: Api
    session: str


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
async def large(request, tmp_path_factory) -> AsyncIterator[Large]:
    folder = tmp_path_factory.mktemp("large")
    kind = request.param
    url = f"sqlite:///{folder / 'blobhub.db'}" if kind == "sqlite" else await request.getfixturevalue("fresh_postgres")()
    server = MeteredServer(folder / "data", url)
    async with server.running(), connected(server.address, server.admin_key) as api:
        server.alive.discard(server)  # It serves all tests of this module, and is ended here.
        session = await api.session(flows.steps(3))
        await ask(api, "RunExecution", session=session, spec={"definition": "workflow"})
        await acme.organization(api, "crowd")
        await multiply_blob(url, (await acme.blob(api, "crowd/blob")).id, BLOBS)
        await lengthen_log(url, session, EVENTS, rarely=RARELY, rare_type=RARE)
        yield Large(server=server, api=api, session=session)


async def pages(api: Api, method: str, **fields: Any) -> int:
    """Read a list by pages of a thousand; how many pages there are."""
    token, read = "", 0
    while token or not read:
        answer = await ask(api, method, page_size=1000, page_token=token, **fields)
        token, read = answer.next_page_token, read + 1
    return read


async def watched(large: Large) -> int:
    """Read a session's whole log; how many events it has."""
    request = session_pb2.WatchSessionRequest(session=large.session, replay_only=True)
    return sum([len(message.events) async for message in large.api.sessions.WatchSession(request)])


async def watched_undecoded(large: Large) -> int:
    """The same, without decoding what comes, which takes this process longer than the server needs; how many bytes it is."""
    request = session_pb2.WatchSessionRequest(session=large.session, replay_only=True)
    watch = large.api.channel.unary_stream(
        "/blobhub.v1.SessionService/WatchSession", request_serializer=session_pb2.WatchSessionRequest.SerializeToString
    )
    return sum([len(message) async for message in watch(request)])


READS: dict[str, Callable[[Large], Awaitable[object]]] = {
    "a list of blobs": lambda large: pages(large.api, "ListBlobs", organization="crowd"),
    "a list in another order": lambda large: pages(
        large.api, "ListBlobs", organization="crowd", order_by="update_time desc"
    ),
    "the audit log": lambda large: pages(large.api, "ListAuditEntries", parent="-", failures_only=True),
    "a watch of a long log": watched,
    "all events": lambda large: pages(large.api, "ListEvents", session=large.session),
    "rare events": lambda large: pages(large.api, "ListEvents", session=large.session, types=[RARE]),
    "events of a type that there is none of": lambda large: pages(
        large.api, "ListEvents", session=large.session, types=["flow.stopped"], order_by="session_sequence desc"
    ),
    "limits": lambda large: ask(large.api, "GetLimits", parent="crowd"),
}


@pytest.mark.parametrize("what", READS)
async def test_what_reads_much_holds_the_event_loop_for_moments(large: Large, what: str, figure: Figure) -> None:
    await READS[what](large)
    reading = await hold_the_bound(partial(large.server.measure, partial(READS[what], large)))
    figure(f"worst callback {reading.worst_ms:.1f} ms of CPU")


async def test_a_watch_of_a_long_log_delivers_all_of_it(large: Large) -> None:
    assert await watched(large) >= EVENTS


async def test_what_one_reader_of_a_long_log_costs_another_caller(large: Large, figure: Figure) -> None:
    """It prints how long a call takes meanwhile, and asserts that both are served."""
    quiet = await took(large.api)
    reading = asyncio.create_task(watched_undecoded(large))
    busy = await took(large.api, reading.done)
    assert await reading > EVENTS
    assert busy
    figure(f"GetBlob p50 {statistics.median(quiet):.2f} ms alone, {statistics.median(busy):.2f} ms beside a reader")


async def took(api: Api, ended: Callable[[], bool] = lambda: False, calls: int = 200) -> list[float]:
    """How long calls took, in milliseconds; until something has ended."""
    found: list[float] = []
    while len(found) < calls and not ended():
        begun = time.perf_counter()
        await api.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/pipeline"))
        found.append((time.perf_counter() - begun) * 1000)
    return found


async def waits(api: Api, execution: str) -> bool:
    events = (await ask(api, "GetExecution", execution=execution)).execution
    return events.last_execution_sequence > 4 * ROUNDS


async def has_ended(api: Api, execution: str) -> bool:
    return (await ask(api, "GetExecution", execution=execution)).execution.HasField("end_time")


ROUNDS = scaled(6_000, least=1_500)


async def recover_long_log(folder: Path, url: str) -> Reading:
    """Have an execution with a long log recovered; what its recovery took of the loop."""
    async with served(folder / "data", url) as server, connected(server.address, server.admin_key) as api:
        key = server.admin_key
        session = await api.session(flows.rounds(ROUNDS, wait=3600))
        started = await ask(api, "StartExecution", session=session, spec={"definition": "workflow", "step_limit": 100_000})
        await until(partial(waits, api, started.execution.id))
    with Meter().installed() as meter:
        async with served(folder / "data", url, lease_seconds=1) as server, connected(server.address, key) as api:
            await ask(api, "StopExecution", execution=started.execution.id)
            await until(partial(has_ended, api, started.execution.id))
    reading = meter.read()
    recovering = [callback for callback in reading.worst if any("recovery" in place for place in callback.stack)]
    return replace(reading, worst=recovering)


async def test_an_execution_with_a_long_log_is_recovered_in_turns(
    tmp_path: Path, fresh_sqlite: Callable[[Path], Awaitable[str]]
) -> None:
    numbers = itertools.count()

    async def measure() -> Reading:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return await recover_long_log(folder, await fresh_sqlite(folder / "blobhub.db"))

    await hold_the_bound(measure)
