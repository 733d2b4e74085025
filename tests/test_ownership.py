"""Who runs what: leases of servers, executions that change hands, and what is asked of those that another server runs."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import acme
import flows
import joining
import pytest
import sqlalchemy as sa
from blobhub.v1 import execution_pb2 as pb
from blobhub.v1 import session_pb2
from blobhub_server import app
from blobhub_server.clock import utc_now
from blobhub_server.db.engine import Transaction
from blobhub_server.db.postgresql import POOL_SIZE
from blobhub_server.errors import StorageUnavailable
from blobhub_server.workflow.components.contract import ComponentContext, EffectComponent, Inputs, Outcome, PortSpec
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.log import log as log_module
from blobhub_server.workflow.log.log import EventLog
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.runtime.embedded.journal import Journal
from blobhub_server.workflow.runtime.embedded.unit import Unit
from blobhub_server.workflow.store import server as server_store
from blobhub_server.workflow.store import session as session_store
from blobhub_server.workflow.store.server import select_living
from calling import ask, outcome
from databases import FreshPostgres, collected, select
from interpreting import REGISTRY, WaitsForSignal, signalled_document
from joining import Opened
from scale import scaled
from served import Api, served
from several_servers import ended, hand_over, inbox, lease_of, started, state_of, together
from waiting import until, within_deadline


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_server_whose_clock_is_wrong_is_alive_all_the_same(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    monkeypatch.setattr(app, "utc_now", lambda: utc_now() + timedelta(hours=hours))
    with joining.opening() as found:
        async with served(tmp_path / "data", database_url):
            (opened,) = found
            async with opened.host.db.read() as tx:
                assert len((await tx.execute(select_living())).all()) == 1
            lease = await lease_of(opened)
            assert lease / 1e6 - utc_now().timestamp() < 60, "the lease would outlive the server by an hour"


async def test_a_lease_is_renewed_while_the_pool_is_full_of_slow_statements(
    tmp_path: Path, fresh_postgres: FreshPostgres
) -> None:
    async def sleep(opened: Opened) -> None:
        async with opened.host.db.read() as tx:
            await tx.execute(sa.text("SELECT pg_sleep(60)"))

    with joining.opening() as found:
        async with served(tmp_path / "data", await fresh_postgres(), lease_seconds=1):
            (opened,) = found
            slow = [asyncio.create_task(sleep(opened)) for _ in range(2 * POOL_SIZE + 1)]
            for _ in range(3):
                before = await lease_of(opened)
                await until(lambda before=before: _grown(opened, before))
            assert not any(task.done() for task in slow)
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)


async def _grown(opened: Opened, before: int) -> bool:
    return await lease_of(opened) > before


async def test_every_server_starts_and_stops_in_every_session(tmp_path: Path, database_url: str) -> None:
    async with together(tmp_path, database_url) as found:
        session_id = await found[0][1].session(flows.delay(60))
        ids = [await started(api, session_id) for _, api in found * 3]
        for (_, api), id_ in zip(reversed(found * 3), ids, strict=True):
            answer = await ask(api, "StopExecution", execution=id_)
            assert answer.execution.state in (pb.EXECUTION_STATE_STOPPING, pb.EXECUTION_STATE_STOPPED)
        for id_ in ids:
            assert (await ended(found[0][1], id_))[-2:] == ["flow.stopping", "flow.stopped"]


async def test_a_log_that_several_servers_write_is_whole_on_each(tmp_path: Path, database_url: str) -> None:
    """What a server has in memory of a log ends with what it wrote itself."""
    async with together(tmp_path, database_url, progress_seconds=600) as found:
        session_id = await found[0][1].session(flows.steps(3))
        following = [asyncio.create_task(followed(api, session_id)) for _, api in found]
        for _ in range(scaled(100, least=10)):
            for _, api in found:
                await started(api, session_id)
            for _, api in found:
                session = (await ask(api, "GetSession", session=session_id)).session
                watch = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id, replay_only=True))
                numbers = [event.session_sequence async for batch in watch for event in batch.events]
                assert numbers == list(range(1, session.last_session_sequence + 1))
        await ask(found[0][1], "CloseSession", session=session_id)
        for numbers in await within_deadline(asyncio.gather(*following)):
            assert numbers == list(range(1, session.last_session_sequence + 3))


async def test_a_server_that_may_have_lost_an_execution_has_its_whole_log_all_the_same(
    tmp_path: Path, fresh_postgres: FreshPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was frozen: its lease ran out, and it has not heard the rings of the server that took the execution over."""
    async with together(tmp_path, await fresh_postgres(), lease_seconds=600) as ((former, api), (other, others_api)):
        session_id = await api.session(flows.delay(60))
        id_ = await started(api, session_id)
        ownership, bell = former.runtime._ownership, former.host.bell
        monkeypatch.setattr(ownership, "_until", 0.0)
        for name in ("_tell", "ring"):
            monkeypatch.setattr(bell, name, lambda _: None)
        async with other.host.db.write() as tx:
            await server_store.renew(tx, ownership.server_id, -timedelta(minutes=1))
        await other.runtime._recovery.recover()
        await ask(others_api, "StopExecution", execution=id_)
        types = await ended(others_api, id_)
        assert await within_deadline(ended(api, id_)) == types
        following = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id))
        assert [event.type for event in (await within_deadline(following.read())).events] == types
        following.cancel()


async def test_a_server_whose_lease_has_run_out_holds_no_locks_any_more(
    tmp_path: Path, fresh_postgres: FreshPostgres
) -> None:
    """It was frozen between preparing a statement and running it, which PostgreSQL does not take for an idle transaction."""
    async with together(tmp_path, await fresh_postgres(), lease_seconds=600) as ((former, api), (other, others_api)):
        session_id = await api.session(flows.steps(3))
        with pytest.raises(StorageUnavailable):
            async with former.host.db.write() as frozen:
                await session_store.lock(frozen, {session_id})
                await frozen._driver.prepare("SELECT 1")
                async with other.host.db.write() as tx:
                    await server_store.renew(tx, former.runtime._ownership.server_id, -timedelta(minutes=1))
                await other.runtime._ownership._cut_off_expired()
                id_ = await within_deadline(started(others_api, session_id))
        for client in (api, others_api):
            assert (await ended(client, id_))[-1] == "flow.exited"


async def test_tails_are_dropped_when_a_lease_is_renewed_that_had_run_out(
    tmp_path: Path, fresh_postgres: FreshPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with together(tmp_path, await fresh_postgres(), count=1, lease_seconds=600) as ((opened, api),):
        ownership, log = opened.runtime._ownership, opened.runtime._journal._log
        session_id = await api.session(flows.steps(3))
        monkeypatch.setattr(log, "_shared_lately", lambda _: False)

        async def has_tails() -> bool:
            """Not yet where the server has begun to listen just now, which drops them."""
            await ended(api, await started(api, session_id))
            return bool(log._tails)

        await until(has_tails)
        assert ownership.holds_lease
        await ownership._renew()
        assert log._tails
        ownership._until = 0.0
        assert not ownership.holds_lease
        await ownership._renew()
        assert ownership.holds_lease
        assert not log._tails


async def test_a_log_that_another_server_has_written_to_is_read_whole_later(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ring for its line comes before the lines of this server that were committed earlier."""
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        session_id = await api.session(flows.steps(3))
        await ended(api, await started(api, session_id))
        host, now = opened.host, [time.monotonic()]
        monkeypatch.setattr(log_module, "time", SimpleNamespace(monotonic=lambda: now[-1]))
        for ring in (session_id, None):
            log = EventLog(host.db, host.bell)
            lines = await log.read_session(session_id, 0, ("", ""))
            log._others_wrote(ring)
            log.publish(lines[:-1])
            now.append(now[-1] + 3600)
            assert list(await log.read_session(session_id, 0, ("", ""))) == lines


async def test_the_times_of_a_log_increase_although_clocks_are_set_back(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = [timedelta(hours=1)]
    monkeypatch.setattr(app, "utc_now", lambda: utc_now() + ahead[-1])
    async with together(tmp_path, database_url, count=1) as ((_, api),):
        session_id = await api.session(flows.steps(3))
        await ended(api, await started(api, session_id))
        ahead.append(timedelta())
        await ended(api, await started(api, session_id))
        await ask(api, "CloseSession", session=session_id)
        watch = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id, replay_only=True))
        times = [event.create_time.ToNanoseconds() for batch in [batch async for batch in watch] for event in batch.events]
    assert len(times) == 2 * 12 + 2
    assert all(later - earlier >= 1000 for earlier, later in itertools.pairwise(times))


async def followed(api: Api, session_id: str) -> list[int]:
    """The numbers of a session's events, until it is closed."""
    watch = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id))
    return [event.session_sequence async for batch in watch for event in batch.events]


async def test_a_session_is_closed_through_a_server_that_runs_nothing_in_it(tmp_path: Path, database_url: str) -> None:
    async with together(tmp_path, database_url) as found:
        session_id = await found[0][1].session(flows.delay(60))
        for _, api in found * 2:
            await started(api, session_id)
        api = found[-1][1]
        answer = await ask(api, "CloseSession", session=session_id)
        assert answer.session.state == session_pb2.SESSION_STATE_CLOSING
        watch = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id))
        types = [event.type async for batch in watch for event in batch.events]
        assert types[-1] == "session_closed"
        assert types.count("flow.stopped") == 2 * len(found)
        assert types.count("session_closed") == 1
        assert await select(database_url, "SELECT * FROM messages") == []


async def test_a_stop_waits_in_the_inbox_for_whoever_takes_over(tmp_path: Path, database_url: str) -> None:
    async with together(tmp_path, database_url, count=1, lease_seconds=0.5) as ((opened, api),):
        session_id = await api.session(flows.delay(60))
        id_ = await started(api, session_id)
        idle = await hand_over(opened, id_)
        answer = await ask(api, "StopExecution", execution=id_)
        assert answer.execution.state == pb.EXECUTION_STATE_STOPPING
        again = await ask(api, "StopExecution", execution=id_)
        assert again.execution.state == pb.EXECUTION_STATE_STOPPING
        assert await select(database_url, "SELECT number, kind FROM messages") == [(1, "stop")]
        assert await state_of(api, id_) == "STOPPING"
        async with opened.host.db.write() as tx:
            await server_store.delete(tx, idle)
        assert (await ended(api, id_))[-2:] == ["flow.stopping", "flow.stopped"]
        assert await select(database_url, "SELECT * FROM messages") == []


async def test_a_blob_is_deleted_with_what_waits_in_an_inbox(tmp_path: Path, database_url: str) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        id_ = await started(api, await api.session(flows.delay(60)))
        await hand_over(opened, id_)
        await ask(api, "StopExecution", execution=id_)
        await acme.delete_blob(api, cascade=True)
        await collected(database_url)
        assert await select(database_url, "SELECT * FROM messages") == []


class Ends(EffectComponent):
    """Ends when it is told to."""

    type = "test.ends"
    title = "Ends"
    ports = (PortSpec(category="flow_input", route="in", description="Control enters here."),)
    routes = ("success",)

    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def run(self, inputs: Inputs, context: ComponentContext) -> Outcome:
        await self.told.wait()
        return Outcome(route="success")


async def test_a_turn_that_was_decided_without_a_stop_is_decided_again(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step ends while a stop is being committed: what follows from it would end the execution as completed."""
    step, append, decided = Ends(), Journal.append, asyncio.Event()
    monkeypatch.setattr(ComponentRegistry, "load", lambda: ComponentRegistry([*REGISTRY, step]))

    async def note(journal: Journal, unit: Unit) -> Execution:
        if step.told.is_set():
            decided.set()
        return await append(journal, unit)

    monkeypatch.setattr(Journal, "append", note)
    components = [flows.component("start", "flow.start"), flows.component("step", step.type)]
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        id_ = await started(api, await api.session(flows.document(components, [flows.control("start", "step")])))

        async def stop_slowly(tx: Transaction) -> None:
            await inbox(opened).stop(tx, id_)
            step.told.set()
            await within_deadline(decided.wait())

        await opened.host.db.transact(stop_slowly)
        assert (await ended(api, id_))[-1] == "flow.stopped"
        assert await state_of(api, id_) == "STOPPED"


async def stop_outcome(api: Api, execution_id: str, request_id: str) -> str:
    """The state that an execution has to end with, by what its stop is answered."""
    answers = {"OK": "STOPPED", "EXECUTION_ENDED": "COMPLETED"}
    return answers[await outcome(ask(api, "StopExecution", execution=execution_id, request_id=request_id))]


async def test_a_stop_that_is_acknowledged_is_final_and_one_that_is_refused_has_no_effect(
    tmp_path: Path, database_url: str
) -> None:
    dice, seconds = random.Random(20261126), 0.05
    async with together(tmp_path, database_url) as found:
        session_id = await found[0][1].session(flows.delay(seconds))

        async def round_(number: int) -> None:
            api = dice.choice(found)[1]
            id_ = await started(dice.choice(found)[1], session_id)
            await asyncio.sleep(dice.uniform(0.5, 1.5) * seconds)
            expected = await stop_outcome(api, id_, found[0][0].host.ids() if number % 2 else "")
            await ended(api, id_)
            outcomes[expected] += 1
            assert await state_of(api, id_) == expected

        outcomes = {"STOPPED": 0, "COMPLETED": 0}
        while min(outcomes.values()) < scaled(100, least=10):
            await asyncio.gather(*(round_(number) for number in range(20)))
    print(outcomes)


@pytest.mark.parametrize("name", ["go", "another"])
async def test_a_signal_from_anybodys_transaction_ends_what_waits_for_it(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(ComponentRegistry, "load", lambda: ComponentRegistry([*REGISTRY, WaitsForSignal()]))
    async with together(tmp_path, database_url) as found:
        api = found[0][1]
        id_ = await started(api, await api.session(signalled_document(patient=True)))
        assert await state_of(api, id_) == "WAITING"
        opened = found[-1][0]

        async def send(tx: Transaction) -> None:
            await inbox(opened).signal(tx, id_, name=name, key="mine", value={"n": 7})
            await inbox(opened).signal(tx, id_, name=name, key="mine", value={"n": 8})

        await opened.host.db.transact(send)
        if name == "go":
            assert (await ended(api, id_))[-1] == "flow.exited"
            execution = (await ask(api, "GetExecution", execution=id_)).execution
            assert execution.result.struct_value.fields["n"].number_value == 7
        await until(lambda: _nothing_waits(database_url))
        assert await state_of(api, id_) == ("COMPLETED" if name == "go" else "WAITING")


async def _nothing_waits(url: str) -> bool:
    return await select(url, "SELECT * FROM messages") == []
