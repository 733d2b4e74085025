"""Three servers on one PostgreSQL: whichever a call comes to, and whichever of them goes away, everything ends once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import flows
import grpc
import pytest
from blobhub.v1 import event_pb2, execution_pb2, session_pb2
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.ids import Uuid7
from databases import FreshPostgres, select
from figures import Figure
from interpreting import TERMINAL
from scale import scaled
from served import Api, ServerProcess, connected
from waiting import until

STARTS = scaled(3000, least=90)
SESSIONS = scaled(50, least=6)
AT_ONCE = 24
LEASE_SECONDS = 2
UNFINISHED = "SELECT count(*) FROM executions WHERE state NOT IN ('completed', 'failed', 'stopped')"

WORK = flows.document(
    [
        flows.component("start", "flow.start"),
        flows.component("script", "logic.code", code="set_data_output('result', 1)\nset_result('success')"),
        flows.component("wait", "flow.delay", seconds=0.3),
        flows.component("end", "flow.end", value="done"),
    ],
    [flows.control("start", "script"), flows.control("script", "wait", "success"), flows.control("wait", "end")],
)


@dataclass
class Cluster:
    """Three servers, clients of those that answer, and what was asked of them."""

    servers: list[ServerProcess]
    apis: list[Api]
    dice: random.Random = field(default_factory=lambda: random.Random(20261126))
    ids: Uuid7 = field(default_factory=Uuid7)
    refusals: Counter[str] = field(default_factory=Counter)
    stopped: set[str] = field(default_factory=set)
    watched: int = 0

    def any(self) -> Api:
        return self.dice.choice(self.apis)

    async def patiently(self, call: Callable[[Api], Awaitable[object]]) -> object | None:
        """Make a call through any server until one answers; None where it is refused for what is asked."""
        while True:
            try:
                return await call(self.any())
            except grpc.aio.AioRpcError as error:
                self.refusals[reason_of(error) or error.code().name] += 1
                if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                    return None
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
                await asyncio.sleep(0.05)


@asynccontextmanager
async def three(tmp_path: Path, url: str) -> AsyncIterator[Cluster]:
    """Three servers, each a process with a short lease."""
    async with AsyncExitStack() as stack:
        servers = [ServerProcess(tmp_path / "data", url, lease_seconds=LEASE_SECONDS) for _ in range(3)]
        for server in servers:
            await server.start()
            stack.callback(_end, server)
        key = servers[0].admin_key
        apis = [await stack.enter_async_context(connected(server.address, key)) for server in servers]
        yield Cluster(servers=servers, apis=apis)


def _end(server: ServerProcess) -> None:
    if server in ServerProcess.alive:
        server.kill()


async def sessions(api: Api) -> list[str]:
    made = [await api.session(WORK)]
    for _ in range(1, SESSIONS):
        request = session_pb2.CreateSessionRequest(revision="acme/pipeline@draft")
        made.append((await api.sessions.CreateSession(request)).session.id)
    return made


async def start(cluster: Cluster, session_id: str) -> str:
    request = execution_pb2.StartExecutionRequest(
        session=session_id, spec={"definition": "workflow"}, request_id=cluster.ids()
    )
    answer = await cluster.patiently(lambda api: api.executions.StartExecution(request, timeout=5))
    return answer.execution.id


async def stop(cluster: Cluster, execution_id: str) -> None:
    request = execution_pb2.StopExecutionRequest(execution=execution_id, request_id=cluster.ids())
    if await cluster.patiently(lambda api: api.executions.StopExecution(request, timeout=5)):
        cluster.stopped.add(execution_id)


async def watch(cluster: Cluster, execution_id: str) -> None:
    """Watch an execution to its end, through another server whenever one goes away: no gap, and no repeat."""
    seen: list[event_pb2.Event] = []

    async def on(api: Api) -> bool:
        request = execution_pb2.WatchExecutionRequest(
            execution=execution_id, after_execution_sequence=seen[-1].execution_sequence if seen else 0
        )
        async for message in api.executions.WatchExecution(request, timeout=10):
            seen.extend(message.events)
        return True

    while not seen or seen[-1].type not in TERMINAL:
        await cluster.patiently(on)
    assert [event.execution_sequence for event in seen] == list(range(1, len(seen) + 1))
    cluster.watched += 1


async def load(cluster: Cluster, session_ids: list[str], trouble: Callable[[], Awaitable[None]] | None = None) -> list[str]:
    """Start executions through random servers, stop a third of them and watch a third; trouble comes in the middle."""
    left, started, troubled = STARTS, [], []

    async def one() -> None:
        nonlocal left
        while left:
            left -= 1
            if trouble and not troubled and left < STARTS / 2:
                troubled.append(asyncio.create_task(trouble()))
            id_ = await start(cluster, cluster.dice.choice(session_ids))
            started.append(id_)
            chosen = cluster.dice.randrange(3)
            if chosen == 0:
                await asyncio.sleep(cluster.dice.uniform(0, 0.4))
                await stop(cluster, id_)
            elif chosen == 1:
                await watch(cluster, id_)

    await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    await asyncio.gather(*troubled)
    return started


async def check(cluster: Cluster, url: str, session_ids: list[str], started: list[str]) -> None:
    """Everything has ended once, as its stop was answered, and every log is dense."""
    await until(lambda: _finished(url))
    assert len(set(started)) == STARTS
    assert await select(url, "SELECT count(*) FROM executions") == [(STARTS,)], "a start was done twice, or lost"
    endings: dict[str, list[str]] = {}
    for session_id in session_ids:
        request = session_pb2.WatchSessionRequest(session=session_id, replay_only=True)
        events = [event async for batch in cluster.apis[0].sessions.WatchSession(request) for event in batch.events]
        assert [event.session_sequence for event in events] == list(range(1, len(events) + 1))
        own: dict[str, list[int]] = {}
        for event in events:
            own.setdefault(event.execution_id, []).append(event.execution_sequence)
            if event.type in TERMINAL:
                endings.setdefault(event.execution_id, []).append(event.type)
        assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in own.values())
    assert endings.keys() == set(started)
    assert {len(types) for types in endings.values()} == {1}
    assert {id_ for id_, (type_,) in endings.items() if type_ == "flow.stopped"} == cluster.stopped
    assert await select(url, "SELECT count(*) FROM messages") == [(0,)]
    assert not {"ABORTED", "OWNERSHIP_LOST", "INTERNAL"} & cluster.refusals.keys()


async def _finished(url: str) -> bool:
    return await select(url, UNFINISHED) == [(0,)]


def told(cluster: Cluster, started: list[str]) -> str:
    refused = dict(cluster.refusals) or "nothing"
    return f"{len(started)} starts, {len(cluster.stopped)} stops, {cluster.watched} watches, refused or cut off: {refused}"


@pytest.mark.timeout(3600)
async def test_no_call_is_refused_for_the_server_it_came_to(
    tmp_path: Path, fresh_postgres: FreshPostgres, figure: Figure
) -> None:
    url = await fresh_postgres()
    async with three(tmp_path, url) as cluster:
        session_ids = await sessions(cluster.any())
        started = await load(cluster, session_ids)
        await check(cluster, url, session_ids, started)
    assert cluster.refusals.keys() <= {"EXECUTION_ENDED"}
    figure(told(cluster, started))


@pytest.mark.timeout(3600)
async def test_nothing_is_lost_when_one_server_is_killed_and_one_sleeps_through_its_lease(
    tmp_path: Path, fresh_postgres: FreshPostgres, figure: Figure
) -> None:
    url = await fresh_postgres()
    async with three(tmp_path, url) as cluster:
        session_ids = await sessions(cluster.any())
        _, killed, frozen = cluster.servers
        whole = list(cluster.apis)

        async def trouble() -> None:
            cluster.apis[:] = [whole[0], whole[2]]
            killed.kill()
            await asyncio.sleep(0.5)
            cluster.apis[:] = whole[:1]
            os.kill(frozen.pid, signal.SIGSTOP)
            try:
                await until(lambda: _only_one_lives(url))
                await asyncio.sleep(LEASE_SECONDS)
            finally:
                os.kill(frozen.pid, signal.SIGCONT)
            cluster.apis[:] = [whole[0], whole[2]]

        started = await load(cluster, session_ids, trouble)
        await check(cluster, url, session_ids, started)
        fences = dict(await select(url, "SELECT fence, count(*) FROM executions GROUP BY fence"))
    assert set(fences) > {1}, "nothing was taken over"
    figure(f"{told(cluster, started)}; executions by fence: {fences}")


async def _only_one_lives(url: str) -> bool:
    query = "SELECT count(*) FROM servers WHERE lease_until > extract(epoch FROM clock_timestamp()) * 1000000"
    return await select(url, query) == [(1,)]
