"""Executions that rest are rows: they are in no memory, and go on in time and when something comes for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import flows
import pytest
import signals
from blobhub.v1 import execution_pb2 as pb
from blobhub_server import app
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.runtime.embedded import resting, runners
from blobhub_server.workflow.runtime.embedded.recovery import Recovery
from blobhub_server.workflow.runtime.embedded.runner import Runner
from calling import ask
from databases import FreshPostgres, select
from joining import Opened
from scale import scaled
from served import Api, ServerProcess, connected
from several_servers import ended, started, state_of, together
from waiting import until
from wall_clock import WallClock

COUNT = scaled(200, least=20)
RETRIED = {"retry": {"maximum_attempts": 2, "initial_interval": "0.4s"}}


@pytest.fixture
def parking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have whatever rests leave memory at once, however soon it is due."""
    monkeypatch.setattr(resting, "MAX_COUNT", 0)
    monkeypatch.setattr(runners, "KEPT_SECONDS", 0.0)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The executions whose logs servers read, by id."""
    found: list[str] = []
    load = Recovery.load_runner

    async def note(recovery: Recovery, execution: Execution) -> object:
        found.append(execution.id)
        return await load(recovery, execution)

    monkeypatch.setattr(Recovery, "load_runner", note)
    return found


def is_parked(opened: Opened) -> bool:
    """Whether nothing that runs is in memory."""
    return not opened.runtime._runners.running


async def types_of(api: Api, document: str, alias: str) -> list[str]:
    """What an execution of a document in the only session logs."""
    await api.put(document, alias=alias)
    (session,) = (await ask(api, "ListSessions", blob="acme/pipeline")).sessions
    answer = await ask(api, "StartExecution", session=session.id, spec={"definition": alias})
    return await ended(api, answer.execution.id)


def retried() -> str:
    """A step whose next attempt is waited for, with a delay beside it."""
    failing = flows.component("fails", "logic.code", policy=RETRIED, code="raise ValueError('always')")
    parts = [flows.component("start", "flow.start"), failing, flows.component("wait", "flow.delay", seconds=0.6)]
    return flows.document(parts, [flows.control("start", "fails"), flows.control("start", "wait")])


async def test_what_leaves_memory_logs_the_same_as_what_stays(tmp_path: Path, database_url: str, loads: list[str]) -> None:
    documents = {"delay": flows.delay(0.4), "retried": retried(), "late": signals.waits(("go", ""), timeout=0.4)}
    logged = list[dict[str, list[str]]]()
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        await api.session(flows.delay(0))
        for parks in (False, True):
            with pytest.MonkeyPatch.context() as patch:
                if parks:
                    patch.setattr(resting, "MAX_COUNT", 0)
                    patch.setattr(runners, "KEPT_SECONDS", 0.0)
                found = await asyncio.gather(*(types_of(api, text, alias) for alias, text in documents.items()))
            logged.append(dict(zip(documents, found, strict=True)))
            assert bool(loads) == parks
        await until(lambda: is_parked(opened))
    assert logged[0] == logged[1]


@pytest.mark.usefixtures("parking")
async def test_signals_and_stops_reach_what_is_in_no_memory(tmp_path: Path, database_url: str) -> None:
    async with together(tmp_path, database_url) as found:
        (opened, api), (_, other) = found[0], found[-1]
        session_id = await api.session(signals.waiting())
        ids = [await started(api, session_id) for _ in range(4)]
        await until(lambda: is_parked(opened))
        assert len((await ask(api, "ListWaits", blob="acme/pipeline")).waits) == 4
        watches = [asyncio.create_task(ended(api, id_)) for id_ in ids]
        await ask(other, "SignalExecution", execution=ids[0], name="go", value={"number_value": 7})
        assert (await watches[0])[-1] == "flow.exited"
        await ask(other, "SignalExecution", execution=ids[1], name="another")
        await until(lambda: _nothing_waits(database_url))
        await until(lambda: is_parked(opened))
        assert await state_of(api, ids[1]) == "WAITING"
        await ask(other, "StopExecution", execution=ids[1])
        assert (await watches[1])[-2:] == ["flow.stopping", "flow.stopped"]
        await ask(other, "CloseSession", session=session_id)
        assert [(await watch)[-1] for watch in watches[2:]] == ["flow.stopped"] * 2
    assert await select(database_url, "SELECT DISTINCT fence, recoveries FROM executions") == [(1, 0)]


async def _nothing_waits(url: str) -> bool:
    return await select(url, "SELECT * FROM messages") == []


@pytest.mark.usefixtures("parking")
async def test_what_an_execution_may_take_ends_also_while_it_is_in_no_memory(tmp_path: Path, database_url: str) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        session_id = await api.session(signals.waiting())
        spec = {"definition": "workflow", "timeout": timedelta(seconds=1)}
        id_ = (await ask(api, "StartExecution", session=session_id, spec=spec)).execution.id
        await until(lambda: is_parked(opened))
        assert (await ended(api, id_))[-1] == "flow.error"
        assert (await ask(api, "GetExecution", execution=id_)).execution.failure.reason == "TIMEOUT"


async def test_a_server_that_starts_reads_no_log_of_what_rests(tmp_path: Path, database_url: str, loads: list[str]) -> None:
    async with together(tmp_path, database_url, count=1) as ((_, api),):
        session_id, key = await api.session(flows.delay(600)), api.key
        ids = [await started(api, session_id) for _ in range(COUNT)]
    async with together(tmp_path, database_url, count=1, key=key) as ((opened, api),):
        await until(lambda: _owned(database_url, opened.host.server_id, COUNT))
        assert await state_of(api, ids[0]) == "WAITING"
        await ask(api, "StopExecution", execution=ids[0])
        assert (await ended(api, ids[0]))[-1] == "flow.stopped"
        assert loads == ids[:1]
        assert is_parked(opened)
    assert await select(database_url, "SELECT DISTINCT fence, recoveries FROM executions") == [(2, 0)]


async def _owned(url: str, server_id: str, count: int) -> bool:
    return await select(url, f"SELECT count(*) FROM executions WHERE owner = '{server_id}'") == [(count,)]


async def test_what_rests_outlasts_the_kill_of_its_server(tmp_path: Path, database_url: str) -> None:
    server = ServerProcess(tmp_path / "data", database_url, lease_seconds=1)
    await server.start()
    async with connected(server.address, server.admin_key) as api:
        session_id = await api.session(signals.waiting())
        await api.put(flows.delay(1.5), alias="delay")
        ids = [await started(api, session_id) for _ in range(3)]
        due = [await _start(api, session_id, "delay") for _ in range(5)]
        await ask(api, "SignalExecution", execution=ids[2], name="another")
        await until(lambda: _nothing_waits(database_url))
        await ask(api, "StopExecution", execution=ids[1])
        server.kill()
    await server.start()
    async with connected(server.address, server.admin_key) as api:
        await ask(api, "SendSignal", blob="acme/pipeline", name="go")
        assert (await ended(api, ids[0]))[-1] == "flow.exited"
        assert (await ended(api, ids[1]))[-1] == "flow.stopped"
        for id_ in due:
            types = await ended(api, id_)
            assert types[-1] == "flow.exited"
            assert types.count("processor.exited") == 3
        assert await state_of(api, ids[2]) == "WAITING"
    assert server.stop() == 0
    assert await select(database_url, "SELECT DISTINCT recoveries FROM executions") == [(0,)]


async def _start(api: Api, session_id: str, definition: str) -> str:
    return (await ask(api, "StartExecution", session=session_id, spec={"definition": definition})).execution.id


async def test_of_two_servers_one_wakes_what_a_third_has_left(
    tmp_path: Path, fresh_postgres: FreshPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, woken = await fresh_postgres(), list[str]()
    async with together(tmp_path, url, count=1) as ((_, api),):
        session_id, key = await api.session(flows.delay(4)), api.key
        ids = [await started(api, session_id) for _ in range(COUNT)]
    wake = Runner.wake

    def note(runner: Runner, *, cautious: bool) -> None:
        assert cautious, "it may have ended the server that had it"
        woken.append(runner.execution.id)
        wake(runner, cautious=cautious)

    monkeypatch.setattr(Runner, "wake", note)
    async with together(tmp_path, url, key=key, lease_seconds=60) as ((_, api), (_, other)):
        logs = await asyncio.gather(*(ended(dice, id_) for id_ in ids for dice in (api, other)))
    assert {types[-1] for types in logs} == {"flow.exited"}
    # Some may have been due before their server ended.
    left = {id_ for (id_,) in await select(url, "SELECT id FROM executions WHERE fence > 1")}
    assert left
    assert sorted(woken) == sorted(left)
    assert await select(url, "SELECT max(fence) FROM executions") == [(2,)]


@pytest.mark.usefixtures("parking")
@pytest.mark.parametrize("before", [timedelta(), timedelta(hours=1)], ids=["forward", "back"])
async def test_what_is_in_no_memory_is_neither_early_nor_late_when_the_clock_is_set(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, before: timedelta
) -> None:
    """One delay passes, another one beside it has just begun."""
    clock = WallClock(before)
    monkeypatch.setattr(app, "utc_now", clock)
    parts = [flows.component(name, "flow.delay", seconds=s) for name, s in (("short", 1), ("long", 600), ("after", 0.5))]
    starts = [flows.control("start", "short"), flows.control("start", "long"), flows.control("short", "after")]
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        id_ = await started(api, await api.session(flows.document([flows.component("start", "flow.start"), *parts], starts)))
        await until(lambda: is_parked(opened))
        clock.ahead = timedelta(hours=1) - before
        await until(lambda: _have_exited(api, id_, 3))
        assert await state_of(api, id_) == "WAITING"
        await until(lambda: is_parked(opened))
        await ask(api, "StopExecution", execution=id_)
        assert (await ended(api, id_)).count("processor.exited") == 3


async def _have_exited(api: Api, execution_id: str, count: int) -> bool:
    watch = api.executions.WatchExecution(pb.WatchExecutionRequest(execution=execution_id, replay_only=True))
    types = [event.type async for batch in watch for event in batch.events]
    return types.count("processor.exited") == count


def test_those_that_have_rested_longest_give_way_by_count_and_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "MAX_COUNT", 3)
    monkeypatch.setattr(resting, "MAX_BYTES", 100)
    assert _parked([("a", 1), ("b", 1), ("c", 1), ("a", 2), ("d", 1)]) == ["b"]
    assert _parked([("a", 60), ("b", 30), ("c", 20)]) == ["a"]
    assert _parked([("a", 500)]) == []
    assert _parked([("a", 500), ("b", 1)]) == ["a"]


class _Resting:
    def __init__(self, id_: str, size: int) -> None:
        self.execution, self.state_bytes = type("Named", (), {"id": id_}), size


def _parked(rested: Sequence[tuple[str, int]]) -> list[str]:
    parked: list[str] = []
    kept = resting.Resting(lambda runner: parked.append(runner.execution.id))
    for id_, size in rested:
        kept.add(_Resting(id_, size))
    return parked
