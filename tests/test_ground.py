"""The ground shakes: the database is away, a connection is lost, a commit fails and may have been made all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import flows
import grpc
import pytest
from blobhub_server.blobtypes.conformance import expect_refusal, reason_of, unpack
from blobhub_server.db.engine import Transaction
from blobhub_server.db.postgresql import PostgresqlTransaction
from blobhub_server.db.sqlite import SqliteTransaction
from blobhub_server.errors import StorageFull, StorageUnavailable
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.runtime.contract import Start
from blobhub_server.workflow.runtime.decision import Progress
from blobhub_server.workflow.runtime.embedded.journal import Journal
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store.execution import LockedExecution
from calling import ask
from databases import FreshPostgres, execute, select
from failing_component import Fails
from google.rpc import error_details_pb2
from ground import CUT_OFF, WORK, away, check_all, connect_beside, lose_answers, start_many, uncertain_commits
from interpreting import REGISTRY
from joining import Opened
from scale import scaled
from several_servers import ended, started, state_of, together
from waiting import until

EXECUTIONS = scaled(200, least=16)


async def test_a_call_that_the_database_has_no_ear_for_is_to_be_made_again(tmp_path: Path, database_url: str) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        numbers = iter(range(10_000))

        async def refused() -> grpc.aio.AioRpcError | None:
            """SQLite has room for some more rows on the pages that there are."""
            try:
                await ask(api, "CreateOrganization", alias=f"organization-{next(numbers)}")
            except grpc.aio.AioRpcError as error:
                return error
            return None

        async with away(opened.host.db):
            error = await until(refused)
        full = opened.host.db.exclusive
        code = grpc.StatusCode.RESOURCE_EXHAUSTED if full else grpc.StatusCode.UNAVAILABLE
        assert (error.code(), reason_of(error)) == (code, "STORAGE_FULL" if full else "STORAGE_UNAVAILABLE")
        again = error_details_pb2.RetryInfo()
        assert unpack(error, again)
        assert again.retry_delay.seconds == (5 if full else 1)
        assert error.details() == (StorageFull if full else StorageUnavailable).text
        assert await refused() is None


async def test_executions_complete_whatever_becomes_of_their_commits(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with together(tmp_path, database_url, count=1, lease_seconds=1) as ((_, api),):
        session_id = await api.session(WORK)
        with uncertain_commits(monkeypatch, 20261126) as told:
            ids = await start_many(api, session_id, EXECUTIONS)
            await check_all(database_url, session_id, ids)
    assert min(told.values()) > 0
    print(told)


async def test_executions_complete_while_connections_are_cut_off(tmp_path: Path, fresh_postgres: FreshPostgres) -> None:
    url = await fresh_postgres()
    async with together(tmp_path, url, lease_seconds=1) as found:
        (opened, api), *_ = found
        session_id, beside = await api.session(WORK), await connect_beside(opened.host.db)

        async def cut_off() -> None:
            while True:
                await asyncio.sleep(0.1)
                await beside.execute(CUT_OFF, opened.host.db.url.database)

        cutting = asyncio.create_task(cut_off())
        ids = await start_many(api, session_id, EXECUTIONS)
        await asyncio.sleep(0.5)
        cutting.cancel()
        await asyncio.gather(cutting, return_exceptions=True)
        await beside.close()
        await check_all(url, session_id, ids)


async def test_an_execution_whose_log_moved_on_after_a_commit_that_seemed_to_fail_goes_on_from_there(
    tmp_path: Path, database_url: str
) -> None:
    """The commit was made, but only after the execution had been resumed: what is in memory lacks its last record."""
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        id_ = await started(api, await api.session(flows.delay(0.5)))
        runner = opened.runtime._runners._runners[id_]
        behind = replace(runner.execution, last_execution_sequence=runner.execution.last_execution_sequence - 1)
        runner._progress = Progress(behind, runner._progress.state)
        types = await ended(api, id_)
        assert types[-1] == "flow.exited"
        assert types.count("processor.waiting") == 1


@pytest.mark.parametrize("lease_seconds", [600, 0.5])
async def test_executions_go_on_when_the_database_is_back(tmp_path: Path, database_url: str, lease_seconds: float) -> None:
    """Their delays pass while it is away, and short leases too: then it is the other server that may go on."""
    async with together(tmp_path, database_url, lease_seconds=lease_seconds) as ((opened, api), *_):
        session_id = await api.session(WORK)
        ids = await start_many(api, session_id, EXECUTIONS)
        async with away(opened.host.db):
            await asyncio.sleep(1)
        await check_all(database_url, session_id, ids)


@pytest.mark.parametrize("thing", ["TABLE events", "TABLE executions", "SCHEMA public"])
async def test_executions_wait_for_tables_that_are_away_as_while_they_are_restored(
    tmp_path: Path, fresh_postgres: FreshPostgres, thing: str
) -> None:
    url, (kind, name) = await fresh_postgres(), thing.split()
    async with together(tmp_path, url, count=1) as ((_, api),):
        session_id = await api.session(WORK)
        ids = await start_many(api, session_id, EXECUTIONS)
        await execute(url, f"ALTER {thing} RENAME TO away")
        refused = ask(api, "StartExecution", session=session_id, spec={"definition": "workflow"})
        await expect_refusal(refused, grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
        await asyncio.sleep(1)
        await execute(url, f"ALTER {kind} away RENAME TO {name}")
        await check_all(url, session_id, ids)


async def test_a_turn_that_was_stored_unnoticed_is_not_stored_again_and_its_steps_are_not_run_again(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to one commit is lost, of each execution another one."""
    left = 0

    def is_lost(tx: Transaction) -> bool:
        nonlocal left
        left -= bool(tx._hooks)  # as those have that watchers are waiting for
        return left == 0 and bool(tx._hooks)

    async with together(tmp_path, database_url, count=1) as ((_, api),):
        session_id = await api.session(WORK)
        undisturbed = await ended(api, await started(api, session_id))
        lose_answers(monkeypatch, is_lost)
        for number in range(1, 4):
            left = number + 1  # The first is that of the start.
            assert await ended(api, await started(api, session_id)) == undisturbed
            assert left <= 0


async def test_a_stop_that_was_answered_is_final_also_when_the_storage_is_in_trouble(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, tries = execution_store.lock, []

    async def refuse(tx: Transaction, execution_ids: Collection[str]) -> Mapping[str, LockedExecution]:
        tries.append(execution_ids)
        if len(tries) < 4:
            raise StorageUnavailable
        return await lock(tx, execution_ids)

    async with together(tmp_path, database_url, count=1) as ((_, api),):
        id_ = await started(api, await api.session(flows.delay(60)))
        monkeypatch.setattr(execution_store, "lock", refuse)
        await ask(api, "StopExecution", execution=id_)
        assert (await ended(api, id_))[-1] == "flow.stopped"
        assert await state_of(api, id_) == "STOPPED"


async def test_a_stop_that_was_answered_is_final_also_when_what_follows_cannot_be_stored(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with together(tmp_path, database_url, count=1) as ((_, api),):
        id_, tries = await started(api, await api.session(flows.delay(60))), []

        async def refuse(_journal: Journal, unit: object) -> None:
            tries.append(unit)
            raise ValueError("this cannot be a row")

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", refuse)
            await ask(api, "StopExecution", execution=id_)
            await until(lambda: len(tries) >= 2)
        assert (await ended(api, id_))[-1] == "flow.stopped"
        assert await state_of(api, id_) == "STOPPED"


@pytest.mark.parametrize("joined", [False, True], ids=["alone", "in a transaction of somebody else"])
async def test_a_start_whose_commit_was_not_answered_is_run_at_once_if_it_was_made(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, joined: bool
) -> None:
    """Recovery would find it after two leases, which are long here."""
    lost: list[Transaction] = []

    def is_lost(tx: Transaction) -> bool:
        if tx._doubt_hooks and not lost:
            lost.append(tx)
            return True
        return False

    async with together(tmp_path, database_url, count=1, lease_seconds=600) as ((opened, api),):
        session_id = await api.session(WORK)
        start = await opened.start(session_id, 1)
        lose_answers(monkeypatch, is_lost)
        with pytest.raises(StorageUnavailable):
            await (_join(opened, start) if joined else opened.runtime.start(start))
        ((id_,),) = await select(database_url, "SELECT id FROM executions")
        assert (await ended(api, id_))[-1] == "flow.exited"
        types = [row for (row,) in await select(database_url, "SELECT type FROM events")]
        assert "processor.retrying" not in types, "a step was taken for interrupted"


async def _join(opened: Opened, start: Start) -> None:
    prepared = await opened.runtime.prepare(start)
    await opened.host.db.transact(lambda tx: opened.runtime.join(tx, prepared))


async def test_a_start_whose_commit_was_not_answered_and_not_made_is_not_run(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise StorageUnavailable

    def refuse_file(*_: object) -> None:
        raise StorageUnavailable

    async with together(tmp_path, database_url, count=1, lease_seconds=600) as ((opened, api),):
        start = await opened.start(await api.session(WORK), 1)
        with monkeypatch.context() as patch:
            patch.setattr(PostgresqlTransaction, "commit", refuse)
            patch.setattr(SqliteTransaction, "commit", refuse_file)
            with pytest.raises(StorageUnavailable):
                await opened.runtime.start(start)
        assert opened.runtime._in_doubt
        await until(lambda: not opened.runtime._in_doubt)
        assert await select(database_url, "SELECT id FROM executions") == []
        assert opened.runtime._runners.running == frozenset()


async def test_what_a_component_says_of_its_own_storage_is_its_own_error_and_no_trouble_of_the_server(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = Fails(StorageUnavailable())
    monkeypatch.setattr(ComponentRegistry, "load", lambda: ComponentRegistry([*REGISTRY, fails]))
    policy = {"retry": {"maximum_attempts": 3, "initial_interval": "0.1s"}}
    document = flows.document(
        [flows.component("start", "flow.start"), flows.component("step", "test.fails", policy=policy)],
        [flows.control("start", "step")],
    )
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        id_ = await started(api, await api.session(document))
        assert (await ended(api, id_))[-1] == "flow.error"
        failure = (await ask(api, "GetExecution", execution=id_)).execution.failure
        assert failure.reason == "STORAGE_UNAVAILABLE"
        assert fails.attempts == [1, 2, 3]
        trouble = opened.host.db.trouble
        assert (trouble.down, trouble._times, trouble._last_line) == (False, 0, None)
