"""How fast workers get their tasks, and how many tasks are done a second."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import tasks
from benchmarks.measuring import TURNS, alternating, rate
from benchmarks.rows import row, spread
from benchmarks.serving import serving
from blobhub.v1 import execution_pb2, task_pb2
from blobhub_client import Task, Worker
from served import Api

IN_FLIGHT = 32
QUEUED = 2_000
"""How many tasks wait when the workers come that work them off."""
HANDED = 500


async def main(folder: Path) -> None:
    """Measure, on SQLite."""
    async with serving(folder) as server:
        api = server.api
        session_id = await api.session(tasks.calls())
        bare = server.bare.unary_stream("/bare/Run", response_deserializer=execution_pb2.RunExecutionResponse.FromString)
        await handed(api, session_id)
        for in_flight in (1, IN_FLIGHT):
            await whole(api, bare, session_id, in_flight)
        await worked_off(api, bare, session_id)


async def handed(api: Api, session_id: str) -> None:
    """How long a task takes to a worker that waits: from the call that starts its execution, one at a time."""
    request = execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"})
    took = []
    async with tasks.leasing(api) as leases:
        for _ in range(HANDED):
            start = time.perf_counter()
            starting = asyncio.ensure_future(api.executions.StartExecution(request))
            leased = await leases.next()
            took.append((time.perf_counter() - start) * 1000)
            await starting
            await tasks.complete(api, leased.lease)
    row("a task reaches an idle worker (aim p50 3 ms)", f"{statistics.median(took):.2f} ms", spread(took))


async def whole(api: Api, bare: grpc.aio.UnaryStreamMultiCallable, session_id: str, in_flight: int) -> None:
    """Executions of one task each, beside the bare loop: started, leased, completed and watched to their ends."""
    request = execution_pb2.RunExecutionRequest(session=session_id, spec={"definition": "workflow"})

    async def ours() -> None:
        async for _ in api.executions.RunExecution(request):
            pass

    async def theirs() -> None:
        async for _ in bare(b""):
            pass

    async with working(api):
        mine, base, took = await alternating(ours, theirs, in_flight)
    name = f"executions of a worker's task, {in_flight} in flight"
    row(name, f"{mine:,.0f}/s", f"{mine / base:.0%} of the bare loop ({base:,.0f}/s)")
    row("", spread(took))


async def worked_off(api: Api, bare: grpc.aio.UnaryStreamMultiCallable, session_id: str) -> None:
    """Tasks that wait already: leased and completed, so many at a time, until none is left."""

    async def theirs() -> None:
        async for _ in bare(b""):
            pass

    ours, base = [], []
    for _ in range(TURNS):
        ours.append(await _worked_off(api, session_id))
        base.append((await rate(theirs, IN_FLIGHT))[0])
    mine, other = statistics.median(ours), statistics.median(base)
    name = f"tasks, lease to complete, {IN_FLIGHT} in flight (aim 30 %)"
    row(name, f"{mine:,.0f}/s", f"{mine / other:.0%} of the bare loop ({other:,.0f}/s)")


async def _worked_off(api: Api, session_id: str) -> float:
    request = execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"})
    for _ in range(QUEUED // IN_FLIGHT):
        await asyncio.gather(*(api.executions.StartExecution(request) for _ in range(IN_FLIGHT)))
    left, done = QUEUED // IN_FLIGHT * IN_FLIGHT, asyncio.Event()
    count = left

    async def complete(leased: task_pb2.LeasedTask) -> None:
        nonlocal left
        await tasks.complete(api, leased.lease)
        left -= 1
        if not left:
            done.set()

    start = time.perf_counter()
    async with tasks.leasing(api, maximum_tasks=IN_FLIGHT) as leases, asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(complete(await leases.next()))
        await done.wait()
    return count / (time.perf_counter() - start)


@asynccontextmanager
async def working(api: Api) -> AsyncIterator[None]:
    """A worker of the client that answers at once."""
    worker = Worker(api.channel, "acme", concurrency=IN_FLIGHT)

    @worker.task("resize")
    async def echo(task: Task) -> object:
        return task.input

    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await running
