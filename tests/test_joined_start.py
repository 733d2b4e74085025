"""A start is a part of whatever transaction asks for it: it happens with the rest of it or not at all, and once a cause."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path

import asyncpg
import flows
import grpc
import joining
import pytest
import sqlalchemy as sa
from blobhub.v1 import execution_pb2, limit_pb2, session_pb2
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.blobtypes.contract import RevisionView
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.engine import Transaction
from blobhub_server.db.migrations import migrate
from blobhub_server.db.opening import open_database
from blobhub_server.errors import LimitExceeded, NotFound
from blobhub_server.objects.local import LocalObjects
from blobhub_server.workflow.errors import SessionNotOpen
from blobhub_server.workflow.rules.execution import Cause, CauseKind, Execution
from blobhub_server.workflow.runtime.contract import Start
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import session as session_store
from calling import ask
from databases import select
from figures import Figure
from joining import Opened
from plans import asked
from scale import scaled
from served import WORKFLOW, Api, ServerProcess, connected, served

FIRINGS = scaled(100, least=40)
FIRED = "SELECT number FROM firings_of_a_test"
CAUSES = "SELECT CAST(cause_id AS INTEGER) FROM executions WHERE cause_kind = 'firing'"
UNFINISHED = "SELECT id FROM executions WHERE state NOT IN ('completed', 'failed', 'stopped')"


async def numbers(url: str, query: str) -> list[int]:
    return sorted(number for (number,) in await select(url, query))


async def fired_until(url: str, count: int) -> list[int]:
    """The firings, once there are so many, or all."""
    async with asyncio.timeout(60):
        while True:
            with suppress(sqlite3.OperationalError, asyncpg.UndefinedTableError):  # the table is still to be made
                found = await numbers(url, FIRED)
                if len(found) >= min(count, FIRINGS):
                    return found
            await asyncio.sleep(0.01)


async def all_ended(url: str) -> None:
    async with asyncio.timeout(60):
        while await select(url, UNFINISHED):
            await asyncio.sleep(0.05)


async def log_of(api: Api, session_id: str) -> list[str]:
    """The types of a session's events, whose numbers have no gap."""
    watch = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id, replay_only=True))
    events = [event async for batch in watch for event in batch.events]
    found = await api.sessions.GetSession(session_pb2.GetSessionRequest(session=session_id))
    assert [event.session_sequence for event in events] == list(range(1, found.session.last_session_sequence + 1))
    return [event.type for event in events]


@pytest.fixture
async def opened(tmp_path, database_url):
    """A server, what its workflows were opened with, and a client of it."""
    with joining.opening() as found:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            await joining.make_table(found[0])
            yield found[0], api


@pytest.mark.timeout(3600)
async def test_a_start_and_the_row_beside_it_are_both_there_or_neither_whenever_the_server_is_killed(
    tmp_path: Path, database_url: str, figure: Figure
) -> None:
    dice = random.Random(20261125)
    async with (
        served(tmp_path / "data", database_url) as first,
        connected(first.address, first.admin_key) as api,
    ):
        session_id = await api.session(flows.MIXED)
    command = [joining.__file__, session_id, str(FIRINGS)]
    server = ServerProcess(tmp_path / "data", database_url, command=command, lease_seconds=1)
    kills, fired = 0, []
    while len(fired) < FIRINGS:
        async with server.running():
            await fired_until(database_url, len(fired) + dice.randint(5, 25))
            await asyncio.sleep(dice.uniform(0, 0.05))
        kills += 1
        fired = await numbers(database_url, FIRED)
        assert await numbers(database_url, CAUSES) == fired
    async with server.running():
        await all_ended(database_url)
    assert fired == list(range(FIRINGS))
    assert await numbers(database_url, CAUSES) == fired
    figure(f"{FIRINGS} firings, {kills} kills")


async def test_one_cause_asked_for_by_many_at_once_in_two_servers_starts_one_execution(
    tmp_path: Path, database_url: str
) -> None:
    """SQLite has one server; there, all ask that one."""
    servers = 1 if database_url.startswith("sqlite") else 2
    async with AsyncExitStack() as stack:
        found = stack.enter_context(joining.opening())
        first = await stack.enter_async_context(served(tmp_path / "data", database_url))
        for _ in range(1, servers):
            await stack.enter_async_context(served(tmp_path / "data", database_url))
        api = await stack.enter_async_context(connected(first.address, first.admin_key))
        sessions = [await api.session(flows.scripts(1))]
        for _ in range(1, servers):
            request = session_pb2.CreateSessionRequest(revision="acme/pipeline@draft")
            sessions.append((await api.sessions.CreateSession(request)).session.id)

        async def by_itself(opened: Opened, session_id: str, number: int) -> str:
            return (await opened.runtime.start(await opened.start(session_id, number))).id

        async def in_a_transaction(opened: Opened, session_id: str, number: int) -> str:
            prepared = await opened.runtime.prepare(await opened.start(session_id, number))
            return (await opened.host.db.transact(lambda tx: opened.runtime.join(tx, prepared))).id

        for number in range(5):
            ids = await asyncio.gather(
                *(
                    how(opened, session_id, number)
                    for opened, session_id in zip(found, sessions, strict=True)
                    for how in (by_itself, in_a_transaction) * 8
                )
            )
            assert len(ids) == 16 * servers
            assert len(set(ids)) == 1, "one cause has started several executions"
        assert await numbers(database_url, CAUSES) == list(range(5))
        await all_ended(database_url)
        types = [type_ for session_id in sessions for type_ in await log_of(api, session_id)]
        assert types.count("flow.entered") == types.count("flow.exited") == 5
        assert await select(database_url, "SELECT sum(executions) FROM sessions") == [(5,)]


async def test_a_transaction_that_is_rolled_back_starts_nothing(opened: tuple[Opened, Api], database_url: str) -> None:
    here, api = opened
    session_id = await api.session(flows.steps())
    start = await here.start(session_id, 1)
    prepared = await here.runtime.prepare(start)
    with suppress(ZeroDivisionError):
        async with here.host.db.write() as tx:
            await here.runtime.join(tx, prepared)
            raise ZeroDivisionError
    assert await numbers(database_url, CAUSES) == []
    assert await log_of(api, session_id) == []
    execution = await here.fire(start, 1)
    assert execution.state == "completed"
    assert await log_of(api, session_id) == ["flow.entered", *["processor.entered", "processor.exited"] * 5, "flow.exited"]


async def test_one_transaction_starts_several_in_a_session_that_it_has_made(
    opened: tuple[Opened, Api], database_url: str
) -> None:
    here, api = opened
    start = await here.start(await api.session(flows.scripts(1)), 0)
    made = replace(start.session, id=here.host.ids())
    starts = [replace(start, session=made, cause=Cause(CauseKind.FIRING, str(number))) for number in range(3)]
    prepared = [await here.runtime.prepare(start) for start in starts]
    async with here.host.db.write() as tx:
        await session_store.insert(tx, made)
        for ready in prepared:
            await here.runtime.join(tx, ready)
    await all_ended(database_url)
    types = await log_of(api, made.id)
    assert types.count("flow.exited") == 3


async def test_a_start_that_is_refused_leaves_the_transaction_to_its_owner(
    opened: tuple[Opened, Api], database_url: str
) -> None:
    here, api = opened
    session_id = await api.session(flows.steps(1))
    await api.limits.UpdateLimit(
        limit_pb2.UpdateLimitRequest(parent="acme/pipeline", name="workflow.executions_per_session", value=1)
    )
    await here.fire(await here.start(session_id, 1), 1)

    prepared = await here.runtime.prepare(await here.start(session_id, 2))

    async def refuse(tx: Transaction) -> None:
        with pytest.raises(LimitExceeded):
            await here.runtime.join(tx, prepared)
        await joining.record(tx, 2)

    await here.host.db.transact(refuse)
    assert await numbers(database_url, FIRED) == [1, 2]
    assert await numbers(database_url, CAUSES) == [1]


async def test_a_cause_gets_its_first_execution_also_when_nothing_can_be_started_any_more(
    opened: tuple[Opened, Api],
) -> None:
    here, api = opened
    session_id = await api.session(flows.steps(1))
    first = await here.fire(await here.start(session_id, 1), 1)
    await ask(api, "CloseSession", session=session_id)
    again = await here.start(session_id, 1)
    assert (await here.fire(again, 1)).id == first.id
    assert (await here.runtime.start(again)).id == first.id
    with pytest.raises(SessionNotOpen):
        await here.runtime.start(await here.start(session_id, 2))


async def test_a_session_runs_a_definition_of_another_blob(opened: tuple[Opened, Api], database_url: str) -> None:
    here, api = opened
    session_id = await api.session(flows.steps(1))
    revision = await other_blob(api, flows.steps(3))
    for number, start in ((1, here.fire), (2, by_itself(here))):
        execution = await start(await here.start(session_id, number, revision=revision), number)
        assert (execution.revision_id, execution.result) == (revision.id, b"3")
        assert (execution.blob_id == revision.blob_id, execution.definition_blob_id == revision.blob_id) == (False, True)
        started = await ask(api, "GetExecution", execution=execution.id)
        assert (started.execution.session_id, started.execution.revision_id) == (session_id, revision.id)


def by_itself(here: Opened) -> Callable[[Start, int], Awaitable[Execution]]:
    """Starts that are nobody's part."""
    return lambda start, _number: here.runtime.start(start)


async def other_blob(api: Api, document: str) -> RevisionView:
    """Make `acme/other` with a definition in its draft, and return that."""
    made = (await ask(api, "CreateBlob", organization="acme", alias="other", type=WORKFLOW)).blob
    await api.put(document, revision="acme/other@draft")
    found = (await ask(api, "GetRevision", revision="acme/other@draft")).revision
    return RevisionView(
        id=found.id,
        blob_id=made.id,
        organization_id=made.organization_id,
        blob_type=made.type,
        phase="draft",
        etag=found.etag,
    )


async def test_a_blob_whose_definition_runs_in_a_session_of_another_is_in_use(
    opened: tuple[Opened, Api], database_url: str
) -> None:
    here, api = opened
    session_id = await api.session(flows.steps(1))
    revision = await other_blob(api, flows.delay(60))
    execution = await here.fire(await here.start(session_id, 1, revision=revision), 1)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(api, "DeleteBlob", blob="acme/other")
    assert (reason_of(refused.value), "1 running executions" in refused.value.details()) == ("NOT_EMPTY", True)
    await ask(api, "DeleteBlob", blob="acme/other", cascade=True)
    stopped = await ask(api, "StopExecution", execution=execution.id)
    assert stopped.execution.state == execution_pb2.EXECUTION_STATE_STOPPING


async def test_a_deletion_that_meets_a_start_by_one_of_its_definitions_waits_and_counts_it(
    opened: tuple[Opened, Api],
) -> None:
    here, api = opened
    session_id = await api.session(flows.steps(1))
    revision = await other_blob(api, flows.delay(60))
    prepared = await here.runtime.prepare(await here.start(session_id, 1, revision=revision))
    async with here.host.db.write() as tx:
        await here.runtime.join(tx, prepared)
        deletion = asyncio.ensure_future(ask(api, "DeleteBlob", blob="acme/other"))
        await asyncio.sleep(0.2)
        assert not deletion.done()
    with pytest.raises(grpc.aio.AioRpcError):
        await deletion


async def test_a_definition_that_is_gone_by_the_time_of_the_start_is_not_found(opened: tuple[Opened, Api]) -> None:
    here, api = opened
    session_id = await api.session(flows.steps(1))
    revision = await other_blob(api, flows.steps(1))
    prepared = await here.runtime.prepare(await here.start(session_id, 1, revision=revision))
    await ask(api, "DeleteBlob", blob="acme/other")
    with pytest.raises(NotFound):
        await here.host.db.transact(lambda tx: here.runtime.join(tx, prepared))


async def test_a_start_reads_no_definition_in_the_transaction_that_it_joins(
    opened: tuple[Opened, Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, api = opened
    prepared = await here.runtime.prepare(await here.start(await api.session(flows.steps(1)), 1))

    async def refuse(_self: object, digest: str) -> bytes:
        raise AssertionError(digest)

    monkeypatch.setattr(LocalObjects, "get", refuse)
    for kept in (here.runtime._starts._definitions._stored, here.runtime._starts._definitions._checked):
        kept._entries.clear()
    execution = await here.host.db.transact(lambda tx: here.runtime.join(tx, prepared))
    assert execution.state == "completed"


async def test_the_index_of_causes_refuses_a_second_execution(opened: tuple[Opened, Api], database_url: str) -> None:
    """Whoever writes past the store is stopped by the database."""
    here, api = opened
    await here.fire(await here.start(await api.session(flows.steps(1)), 1), 1)
    names = "session_id, blob_id, revision_id, definition_blob_id, definition_id, definition_alias, definition_digest, "
    names += "cause_kind, cause_id, "
    names += "fence, last_message, state, step_limit, last_execution_sequence, create_time"
    with pytest.raises(sa.exc.IntegrityError):
        async with here.host.db.write() as tx:
            await tx.execute(sa.text(f"INSERT INTO executions (id, {names}) SELECT 'another', {names} FROM executions"))


async def test_what_has_no_runner_is_gone_on_with_by_the_server_that_owns_it(tmp_path, database_url):
    """A connection may be lost during the commit of a start: it is not known to have happened."""
    with joining.opening() as found:
        async with (
            served(tmp_path / "data", database_url, lease_seconds=0.5) as server,
            connected(server.address, server.admin_key) as api,
        ):
            session_id = await api.session(flows.delay(0.2))
            left = await ask(api, "StartExecution", session=session_id, spec={"definition": "workflow"})
            found[0].runtime._runners._runners.pop(left.execution.id).abandon()
            watch = api.executions.WatchExecution(execution_pb2.WatchExecutionRequest(execution=left.execution.id))
            types = [event.type async for batch in watch for event in batch.events]
    assert types[-1] == "flow.exited"


async def test_many_causes_are_looked_up_in_their_index(tmp_path):
    """SQLite walks a whole index that it is given pairs for; the statement is one that it need not."""
    db = await open_database(f"sqlite:///{tmp_path / 'blobhub.db'}")
    await migrate(f"sqlite:///{tmp_path / 'blobhub.db'}", BlobTypes.load().chains())
    with asked() as statements:
        async with db.read() as tx:
            await execution_store.find_by_causes(tx, [Cause(CauseKind.REQUEST, str(number)) for number in range(40)])
    (statement,) = statements
    with closing(sqlite3.connect(tmp_path / "blobhub.db")) as beside:
        plan = beside.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.parameters).fetchall()
    ours = [detail for *_, detail in plan if "executions" in detail]
    assert ours == ["SEARCH executions USING INDEX uq_executions_cause (cause_kind=? AND cause_id=?)"], plan
    await db.close()
