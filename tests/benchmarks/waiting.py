"""Very many executions that wait: how soon a server with them serves, what it takes, and how late those are that come due.

Most are rows that are copied behind the server's back, half in `flow.delay` and half in `flow.wait`, of two that it has run.
Those that come due are its own: started by calls, then the server is started anew, so that none of them is in memory.
The lag of one is when a watcher on this machine has its last event, less when its delay ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import flows
import psutil
import signals
from benchmarks.rows import full_spread, row
from blobhub.v1 import execution_pb2, session_pb2
from blobhub_server.workflow.store.event import events
from blobhub_server.workflow.store.execution import executions
from blobhub_server.workflow.store.wait import waits
from calling import ask
from databases import execute, postgres_in, select
from served import Api, ServerProcess, connected

COMMAND = [str(Path(sys.executable).parent / "blobhub-server"), "serve"]
IN_FLIGHT = 16
DUE_SECONDS = 10.0
"""Within how long those come due that do."""
STARTS_A_SECOND = 15
"""How many are started in a second at least, also on a busy machine."""
SETTLE_SECONDS = 5.0
TABLES = {table.name: table for table in (executions, events, waits)}


@dataclass(frozen=True)
class Sizes:
    """How many wait, and how many of these come due."""

    waiting: int
    due: int


async def main(folder: Path, sizes: Sizes) -> None:
    """Measure on both kinds of database."""
    await _measure(folder / "sqlite", "SQLite", f"sqlite:///{folder / 'waiting.db'}", sizes)
    with postgres_in(folder / "server") as server:
        for name in ("fsync", "autovacuum"):
            server.psql(f"ALTER SYSTEM SET {name} = on;")
        server.psql("SELECT pg_reload_conf();")
        await _measure(folder / "postgresql", "PostgreSQL", server.get_uri(), sizes)


async def _measure(folder: Path, name: str, url: str, sizes: Sizes) -> None:
    server = ServerProcess(folder, url, command=COMMAND, log_level="warning")
    await _start(server)
    key = server.admin_key
    async with connected(server.address, key) as api:
        session_id = await api.session(flows.delay(300 * 86400))
        await api.put(signals.waiting(), alias="signalled")
        originals = [await _started(api, session_id, alias) for alias in ("workflow", "signalled")]
        await api.put(until_given(), alias="due")
        session = await ask(api, "CreateSession", revision="acme/pipeline@draft")
    server.stop()
    for number, original in enumerate(originals):
        await copy_execution(url, original, sizes.waiting // 2, series=number)
    await _start(server)
    async with connected(server.address, key) as api:
        due = await _start_due(api, session.session.id, sizes.due)
    server.stop()
    seconds = await _start(server)
    row(f"{sizes.waiting:,} executions wait, on {name}: start to serving", f"{seconds:.2f} s")
    begin = time.perf_counter()
    async with connected(server.address, key) as api:
        watching = asyncio.create_task(_lags(api, session.session.id, due))
        while await select(url, "SELECT count(DISTINCT owner) FROM executions WHERE end_time IS NULL") != [(1,)]:
            await asyncio.sleep(0.2)
        row("  all of them taken over, after", f"{time.perf_counter() - begin:.1f} s")
        lags = await watching
        await asyncio.sleep(SETTLE_SECONDS)
        row("  idle memory", f"{psutil.Process(server.pid).memory_info().rss / 1e6:.0f} MB")
        row(f"  lag of {len(lags):,} that are due within {DUE_SECONDS:g} s", full_spread(lags))
    server.stop()


async def _start(server: ServerProcess) -> float:
    """Start a server; the seconds that it took to serve."""
    begin = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        await server.start()
    return time.perf_counter() - begin


async def _started(api: Api, session_id: str, alias: str) -> str:
    return (await ask(api, "StartExecution", session=session_id, spec={"definition": alias})).execution.id


def until_given() -> str:
    """Wait until the instant that the input `until` says."""
    parts = [flows.component("start", "flow.start"), flows.component("wait", "flow.delay")]
    parts.append(flows.value("given", "until", persistence="execution", value=""))
    return flows.document(parts, [flows.control("start", "wait"), flows.data("given", "value", "wait", "until")])


async def _start_due(api: Api, session_id: str, count: int) -> Mapping[str, float]:
    """Start executions that come due one after the other, once the server was started anew; when each does, by id."""
    begin = datetime.now(UTC) + timedelta(seconds=20 + count / STARTS_A_SECOND)
    times = [begin + timedelta(seconds=DUE_SECONDS * number / count) for number in range(count)]
    left, due = iter(times), dict[str, float]()

    async def caller() -> None:
        for at in left:
            given = execution_pb2.ExecutionInput(alias="until", value={"string_value": at.isoformat()})
            spec = execution_pb2.ExecutionSpec(definition="due", input_data=[given])
            answer = await ask(api, "StartExecution", session=session_id, spec=spec)
            due[answer.execution.id] = at.timestamp()

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return due


async def _lags(api: Api, session_id: str, due: Mapping[str, float]) -> list[float]:
    """How late the executions end, in milliseconds."""
    lags = list[float]()
    watch = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id))
    async for batch in watch:
        now = time.time()
        lags += [(now - due[event.execution_id]) * 1000 for event in batch.events if event.type == "flow.exited"]
        if len(lags) == len(due):
            break
    return lags


async def copy_execution(url: str, execution_id: str, count: int, *, series: int) -> None:
    """Copy an execution, with its log and what it waits for, as one of the same session."""
    its_session = f"id = (SELECT session_id FROM executions WHERE id = '{execution_id}')"
    ((session_id, last),) = await select(url, f"SELECT id, last_session_sequence FROM sessions WHERE {its_session}")
    ((lines,),) = await select(url, f"SELECT count(*) FROM events WHERE execution_id = '{execution_id}'")
    own = f"'{series:08x}-0000-7000-8000-' || substr(CAST(1000000000000 + n AS TEXT), 2)"
    sequence = f"{last} + CAST(n AS BIGINT) * {lines} + original.execution_sequence"
    copied = {
        "executions": {"id": own},
        "events": {"execution_id": own, "session_sequence": sequence},
        "waits": {"execution_id": own},
    }
    numbers = f"WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count - 1})"
    for table, described in TABLES.items():
        key = "id" if table == "executions" else "execution_id"
        names = [column.name for column in described.columns]
        chosen = ", ".join(copied[table].get(name, f"original.{name}") for name in names)
        source = f"(SELECT * FROM {table} WHERE {key} = '{execution_id}') AS original, numbers"
        await execute(url, f"INSERT INTO {table} ({', '.join(names)}) {numbers} SELECT {chosen} FROM {source}")
    new_last = f"last_session_sequence = {last + count * lines}, executions = executions + {count}"
    await execute(url, f"UPDATE sessions SET {new_last} WHERE id = '{session_id}'")
    if url.startswith("postgresql"):
        await execute(url, "ANALYZE")  # as the server does by itself, a minute later
