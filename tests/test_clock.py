"""Clocks that are set, forward or back, under executions that wait: nothing is early, and nothing waits for an hour more."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import flows
import pytest
from blobhub.v1.execution_pb2 import WatchExecutionRequest
from blobhub_server import app
from blobhub_server.workflow.components.contract import ComponentError
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.interpreter import ExecutionState, Started, todo
from blobhub_server.workflow.rules.execution import DEFAULT_STEP_LIMIT
from blobhub_server.workflow.runtime.decision import Progress, happen
from blobhub_server.workflow.runtime.embedded.steady import SteadyClock
from calling import ask
from failing_component import Fails
from hypothesis import given
from hypothesis import strategies as st
from interpreting import EXECUTION, REGISTRY, compiled, replay
from served import Api
from several_servers import ended, started, state_of, together
from waiting import until
from wall_clock import WallClock

HOUR = timedelta(hours=1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    """The clock of the servers that are started."""
    made = WallClock()
    monkeypatch.setattr(app, "utc_now", made)
    return made


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Fails:
    """A component that the servers have which are started."""
    made = Fails(ComponentError("always", reason="ALWAYS"))
    monkeypatch.setattr(ComponentRegistry, "load", lambda: ComponentRegistry([*REGISTRY, made]))
    return made


def failing(interval: str, beside: float = 0) -> str:
    """A step that is tried twice, and a delay beside it."""
    policy = {"retry": {"maximum_attempts": 2, "initial_interval": interval}}
    return flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("step", "test.fails", policy=policy),
            flows.component("beside", "flow.delay", seconds=beside),
            flows.component("after", "flow.delay", seconds=600),
        ],
        [flows.control("start", "step"), flows.control("start", "beside"), flows.control("beside", "after")],
    )


async def test_what_waits_goes_on_in_time_after_a_restart_with_the_clock_set_back(
    tmp_path: Path, database_url: str, clock: WallClock, fails: Fails
) -> None:
    """A delay, the next attempt at a step, and the end of the time that an execution may take."""
    clock.ahead = HOUR
    async with together(tmp_path, database_url, count=1) as ((_, api),):
        session_id, key = await api.session(flows.delay(2)), api.key
        await api.put(failing("2s"), alias="failing")
        await api.put(flows.delay(600), alias="long")
        long = {"definition": "long", "timeout": timedelta(seconds=2)}
        ids = [
            (await ask(api, "StartExecution", session=session_id, spec=spec)).execution.id
            for spec in ({"definition": "workflow"}, {"definition": "failing"}, long)
        ]
        await until(lambda: _all_wait(api, ids))
    clock.ahead = timedelta()
    async with together(tmp_path, database_url, count=1, key=key) as ((_, api),):
        types = [await asyncio.wait_for(ended(api, id_), 60) for id_ in ids]
        assert [last for *_, last in types] == ["flow.exited", "flow.error", "flow.error"]
        reasons = [(await ask(api, "GetExecution", execution=id_)).execution.failure.reason for id_ in ids]
    assert reasons == ["", "ALWAYS", "TIMEOUT"]
    assert fails.attempts == [1, 2]


async def _all_wait(api: Api, ids: list[str]) -> bool:
    return {await state_of(api, id_) for id_ in ids} == {"WAITING"}


async def test_nothing_is_early_when_the_clock_is_set_forward_under_a_server(
    tmp_path: Path, database_url: str, clock: WallClock, fails: Fails
) -> None:
    async with together(tmp_path, database_url, count=1) as ((_, api),):
        session_id = await api.session(failing("600s", beside=0.5))
        request = {"definition": "workflow", "timeout": timedelta(seconds=1800)}
        id_ = (await ask(api, "StartExecution", session=session_id, spec=request)).execution.id
        await until(lambda: fails.attempts)
        clock.ahead = HOUR
        # Another step has ended, so all that waits has been looked at again.
        await until(lambda: _has(api, id_, "processor.exited", 2))
        assert fails.attempts == [1]
        assert await state_of(api, id_) == "WAITING"
        await ask(api, "StopExecution", execution=id_)
        assert (await ended(api, id_))[-1] == "flow.stopped"


async def test_the_next_attempt_is_made_in_time_when_the_clock_is_set_back_under_a_server(
    tmp_path: Path, database_url: str, clock: WallClock, fails: Fails
) -> None:
    clock.ahead = HOUR
    async with together(tmp_path, database_url, count=1) as ((_, api),):
        id_ = await started(api, await api.session(failing("1s")))
        await until(lambda: _has(api, id_, "processor.retrying", 1))
        clock.ahead = timedelta()
        assert (await ended(api, id_))[-1] == "flow.error"
    assert fails.attempts == [1, 2]


async def _has(api: Api, execution_id: str, type_: str, count: int) -> bool:
    request = WatchExecutionRequest(execution=execution_id, replay_only=True)
    events = [event async for batch in api.executions.WatchExecution(request) for event in batch.events]
    return [event.type for event in events].count(type_) == count


def test_a_delay_has_no_more_left_after_a_restart_than_it_had_when_it_was_journaled() -> None:
    graph, begun = compiled(flows.delay(3)), datetime(2026, 11, 27, 12, tzinfo=UTC)
    progress = Progress(EXECUTION, ExecutionState(step_limit=DEFAULT_STEP_LIMIT))
    decision = happen(graph, progress, [Started({})], now=begun.timestamp(), session={})
    state = replay(graph, decision.records)
    for back in (timedelta(), HOUR, 1000 * HOUR):
        clock = SteadyClock(lambda back=back: begun - back, lambda: 0.0, decision.records[-1].at)
        (wait,) = todo(graph, state, clock.now())
        assert wait.until - clock.now() == pytest.approx(3)


SECONDS = st.floats(-1e6, 1e6)


@given(not_before=SECONDS, walls=st.lists(SECONDS, min_size=1), steps=st.lists(st.floats(0, 1e3)))
def test_a_clock_begins_at_the_later_time_and_goes_on_by_the_monotonic_clock_alone(
    not_before: float, walls: list[float], steps: list[float]
) -> None:
    wall, monotonic = iter(walls * (len(steps) + 1)), [0.0]
    clock = SteadyClock(lambda: datetime.fromtimestamp(next(wall), UTC), lambda: monotonic[-1], not_before)
    begun = clock.now()
    assert begun == pytest.approx(max(walls[0], not_before), abs=1e-6)
    for step in steps:
        monotonic.append(monotonic[-1] + step)
        assert clock.now() - begun == pytest.approx(monotonic[-1], abs=1e-6)
