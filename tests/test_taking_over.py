"""Executions that change hands: what the server that had them, and the one that takes them, may do."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import flows
import pytest
from blobhub_server.clock import utc_now
from blobhub_server.workflow.components.contract import ComponentError
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.runtime.embedded.journal import Journal, OwnershipLost
from blobhub_server.workflow.runtime.embedded.ownership import FORGET_AFTER
from blobhub_server.workflow.runtime.embedded.recovery import Recovery
from blobhub_server.workflow.runtime.embedded.unit import Unit
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import owner as owner_store
from blobhub_server.workflow.store import server as server_store
from blobhub_server.workflow.store.server import servers
from calling import ask
from databases import FreshPostgres, select
from failing_component import Fails
from interpreting import REGISTRY
from joining import Opened
from served import Api
from several_servers import FOREVER, ended, hand_over, seem_active, started, state_of, take_over, together
from waiting import until, within_deadline


async def test_what_was_taken_over_is_not_written_to_by_the_server_that_had_it(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        id_ = await started(api, await api.session(flows.delay(600)))
        before = await select(database_url, "SELECT * FROM events ORDER BY session_sequence")
        await hand_over(opened, id_)
        pass_time(opened, id_, monkeypatch)
        await until(lambda: id_ not in opened.runtime._runners.running)
        assert await select(database_url, "SELECT * FROM events ORDER BY session_sequence") == before
        assert await state_of(api, id_) == "WAITING"


async def test_the_next_attempt_at_a_step_is_not_run_by_a_server_that_has_lost_the_execution(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = Fails(ComponentError("always"))
    monkeypatch.setattr(ComponentRegistry, "load", lambda: ComponentRegistry([*REGISTRY, fails]))
    policy = {"retry": {"maximum_attempts": 3, "initial_interval": "600s"}}
    document = flows.document(
        [flows.component("start", "flow.start"), flows.component("step", "test.fails", policy=policy)],
        [flows.control("start", "step")],
    )
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        id_ = await started(api, await api.session(document))
        await until(lambda: _waits(api, id_))
        await hand_over(opened, id_)
        pass_time(opened, id_, monkeypatch)
        await until(lambda: id_ not in opened.runtime._runners.running)
        assert fails.attempts == [1]


def pass_time(opened: Opened, execution_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what an execution waits for come now, instead of within the hour."""
    runner = opened.runtime._runners._runners[execution_id]
    monkeypatch.setattr(runner, "_time", SimpleNamespace(now=lambda: utc_now().timestamp() + 3600))
    (key,) = runner._underway._timers
    runner._underway._fire(runner, key)


async def _waits(api: Api, execution_id: str) -> bool:
    return await state_of(api, execution_id) == "WAITING"


async def test_what_was_taken_over_is_let_go_of_and_gone_on_with_when_it_comes_back(
    tmp_path: Path, database_url: str
) -> None:
    async with together(tmp_path, database_url, count=1, lease_seconds=0.5) as ((opened, api),):
        id_ = await started(api, await api.session(flows.delay(60)))
        runners = opened.runtime._runners
        for number in (1, 2):
            idle = await hand_over(opened, id_)
            if number == 1:
                await until(lambda: id_ not in runners.running)
            async with opened.host.db.write() as tx:
                await server_store.delete(tx, idle)
            await until(lambda number=number: id_ in runners.running and runners.find(id_).fence == 2 * number + 1)
        await ask(api, "StopExecution", execution=id_)
        assert (await ended(api, id_))[-1] == "flow.stopped"


async def test_a_server_keeps_its_own_executions_when_its_lease_has_run_out(tmp_path: Path, database_url: str) -> None:
    """It was frozen, or its database was away: nobody has taken them over yet, so their steps go on under the same fence."""
    async with together(tmp_path, database_url, count=1, lease_seconds=600) as ((opened, api),):
        id_ = await started(api, await api.session(flows.delay(60)))
        async with opened.host.db.write() as tx:
            await tx.execute(servers.update().values(lease_until=utc_now() - FOREVER))
        assert await opened.runtime._ownership.claim() == []
        assert opened.runtime._runners.find(id_).fence == 1


async def test_a_server_that_is_long_gone_and_owns_nothing_is_forgotten(tmp_path: Path, database_url: str) -> None:
    async with together(tmp_path, database_url, count=1, lease_seconds=600) as ((opened, api),):
        id_ = await started(api, await api.session(flows.delay(60)))
        me, owner, idle, lately = opened.runtime._ownership.server_id, *(opened.host.ids() for _ in range(3))

        async def known() -> set[str]:
            return {found for (found,) in await select(database_url, "SELECT id FROM servers")}

        async with opened.host.db.write() as tx:
            for server_id, expired in ((owner, FOREVER), (idle, FOREVER), (lately, timedelta(minutes=1))):
                await server_store.renew(tx, server_id, -expired)
            await tx.execute(take_over(id_, owner))
            await owner_store.forget_servers(tx, FORGET_AFTER)
        assert await known() == {me, owner, lately}
        assert len(await opened.runtime._ownership.claim()) == 1
        assert await known() == {me, lately}


async def test_recovery_may_take_longer_than_a_lease(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        session_id = await api.session(flows.delay(60))
        ids = [await started(api, session_id) for _ in range(4)]
        await seem_active(opened)
    load = Recovery.load_runner

    async def load_slowly(recovery: Recovery, execution: Execution) -> object:
        await asyncio.sleep(0.3)
        return await load(recovery, execution)

    monkeypatch.setattr(Recovery, "load_runner", load_slowly)
    async with together(tmp_path, database_url, count=1, lease_seconds=0.4) as ((opened, _),):
        runners = opened.runtime._runners
        await until(lambda: runners.running == set(ids))
        assert {id_: runners.find(id_).fence for id_ in ids} == dict.fromkeys(ids, 2)


async def test_what_cannot_be_stored_is_failed_by_one_task_and_ends_when_it_can_be(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        id_ = await started(api, await api.session(flows.delay(600)))
        await until(lambda: _waits(api, id_))
        tries: list[int] = []

        async def refuse(_journal: Journal, _unit: object) -> None:
            tries.append(len(opened.runtime._going_on))
            raise ValueError("this cannot be a row")

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", refuse)
            pass_time(opened, id_, monkeypatch)
            await until(lambda: len(tries) >= 3)
        assert max(tries) <= 1
        assert (await ended(api, id_))[-1] == "flow.error"


async def test_a_commit_that_meets_a_claim_comes_after_it_and_writes_nothing(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delay passes, and what follows from it waits for the transaction that claims the execution."""
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        id_ = await started(api, await api.session(flows.delay(600)))
        await until(lambda: _waits(api, id_))
        append, begun = Journal.append, asyncio.Event()

        async def tell(journal: Journal, unit: Unit) -> object:
            begun.set()
            return await append(journal, unit)

        monkeypatch.setattr(Journal, "append", tell)
        async with opened.host.db.write() as tx:
            idle = opened.host.ids()
            await server_store.renew(tx, idle, FOREVER)
            await tx.execute(take_over(id_, idle))
            pass_time(opened, id_, monkeypatch)
            await within_deadline(begun.wait())
            # Time to get to the lock. Where it does not, it begins after the claim, and writes nothing either.
            await asyncio.sleep(0.2)
            assert id_ in opened.runtime._runners.running
        await until(lambda: id_ not in opened.runtime._runners.running)
        assert await state_of(api, id_) == "WAITING"


async def test_a_turn_under_an_old_fence_does_not_take_that_of_the_new_one_with_it(
    tmp_path: Path, database_url: str
) -> None:
    """This server has lost an execution and got it back; turns of its runners of before and of now share a transaction."""
    async with together(tmp_path, database_url, count=1, lease_seconds=600) as ((opened, api),):
        id_ = await started(api, await api.session(flows.delay(60)))
        runtime = opened.runtime
        now = runtime._runners._runners[id_]
        async with opened.host.db.write() as tx:
            await tx.execute(take_over(id_, runtime._ownership.server_id))
        async with opened.host.db.read() as tx:
            execution = await execution_store.get(tx, id_)

        def decided_once(*_: object) -> Unit:
            raise AssertionError("it rests on no session object")

        units = [
            Unit(
                execution=item,
                graph=now._graph,
                records=[],
                on_commit=lambda: None,
                on_full=lambda _: None,
                decide_again=decided_once,
            )
            for item in (replace(execution, fence=1), execution)
        ]
        answers = await asyncio.gather(*map(runtime._journal.append, units), return_exceptions=True)
        assert isinstance(answers[0], OwnershipLost)
        assert answers[1] is execution


async def test_a_claim_passes_by_what_is_being_written(tmp_path: Path, fresh_postgres: FreshPostgres) -> None:
    async with together(tmp_path, await fresh_postgres(), count=1) as ((opened, api),):
        session_id = await api.session(flows.delay(60))
        ids = [await started(api, session_id) for _ in range(2)]
        gone = opened.host.ids()
        dead = [take_over(id_, gone) for id_ in ids]
        async with opened.host.db.write() as tx:
            for statement in dead:
                await tx.execute(statement)
        async with opened.host.db.write() as writing, opened.host.db.write() as claiming:
            await execution_store.lock(writing, ids[:1])
            claimed = await owner_store.claim(claiming, opened.host.ids(), gone, 10)
            assert [(execution.id, execution.fence) for execution in claimed] == [(ids[1], 3)]
