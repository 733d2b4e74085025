"""Waits for signals inside of scopes: they end with the scope, and what comes later goes to others."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import flows
import pytest
from blobhub_server.workflow.interpreter import Completion, Signalled, Wait, WaitChanges, advance
from calling import ask
from databases import select
from interpreting import Run, compiled, replay
from scoping import controls, datas, inside
from served import Api
from several_servers import ended, started
from signals import waiting
from waiting import until

BLOB = "acme/pipeline"
LEAVING = {
    "its time": {"timeout": "0.05s"},
    "a failure beside": flows.component("leave", "flow.fail", reason="NO"),
    "an end beside": flows.component("leave", "flow.end"),
}


def left_by(way: str, *, last: bool = False, after: tuple[str, ...] = ("stay",)) -> str:
    """Inside of a scope, wait for `go` until it is left that way; then wait for others, in `finally` or after the scope."""
    leave = LEAVING[way]
    timed = "timeout" in leave
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    parts += [flows.component("try", "flow.try", policy=leave if timed else None)]
    parts += inside("try", flows.component("go", "flow.wait", name="go"))
    ways = ["start.next try", "try.body go"]
    if not timed:
        parts += inside("try", flows.component("pause", "flow.delay", seconds=0.05), leave)
        ways += ["try.body pause", "pause.next leave"]
    ids = [f"after-{number}" for number in range(len(after))]
    waits = [flows.component(id_, "flow.wait", name=name) for id_, name in zip(ids, after, strict=True)]
    if last:
        parts += inside("try", *waits)
        ways += [f"try.finally {ids[0]}", "try.success end", "try.failure end"]
    else:
        parts += waits
        ways += [f"try.success {ids[0]}", f"try.failure {ids[0]}", f"{ids[-1]}.received end"]
    ways += [f"{one}.received {two}" for one, two in pairwise(ids)]
    return flows.document(parts, controls(*ways) + ([] if last else datas(f"{ids[-1]}.value end.value")))


def leave(run: Run) -> None:
    """Let the time pass that the scope, or the step beside the wait, has."""
    (timer,) = [command for command in run.pending() if isinstance(command, Wait) and command.until is not None]
    run.now = timer.until
    run.tell(Completion(step=timer.step, attempt=timer.attempt))


async def listed(api: Api) -> list[str]:
    """The names of the signals that are waited for."""
    return [wait.signal.name for wait in (await ask(api, "ListWaits", blob=BLOB)).waits]


async def send(api: Api, name: str, value: Any) -> str:
    """Send a signal by key; the execution that gets it."""
    answer = await ask(api, "SendSignal", blob=BLOB, name=name, value_json=json.dumps(value))
    return str(answer.execution_id)


@pytest.mark.either_database
@pytest.mark.parametrize("last", [False, True], ids=["after", "finally"])
@pytest.mark.parametrize("way", LEAVING)
async def test_a_wait_ends_with_its_scope_and_the_signal_is_kept_for_the_next(
    api: Api, database_url: str, way: str, last: bool
) -> None:
    session_id = await api.session(left_by(way, last=last))
    execution_id = await started(api, session_id)

    async def is_left() -> bool:
        return "stay" in await listed(api)

    await until(is_left)
    assert await listed(api) == ["stay"]
    assert len(await select(database_url, "SELECT step FROM waits")) == 1
    assert await send(api, "go", "for whoever is next") == ""
    await api.put(waiting(), alias="next")
    spec = {"definition": "next"}
    assert (
        await ask(api, "RunExecution", session=session_id, spec=spec)
    ).execution.result.string_value == "for whoever is next"
    assert await send(api, "stay", 1) == execution_id
    await ended(api, execution_id)
    assert await listed(api) == []


@pytest.mark.parametrize("way", LEAVING)
def test_a_signal_that_crosses_the_end_of_its_scope_is_kept_by_the_execution(way: str) -> None:
    run = Run(compiled(left_by(way, after=("stay", "go")))).start()
    leave(run)
    assert [step.component_id for step in run.state.open.values()] == ["after-0"]
    assert [record.type for record in run.tell(Signalled(name="go", key="", value=7, size_bytes=1))] == ["flow.signalled"]
    run.tell(Signalled(name="stay", key="", value=8, size_bytes=1))
    assert (run.state.phase, run.state.result, run.state.holdings.bytes) == ("completed", 7, 0)
    assert replay(run.graph, run.records) == run.state


@pytest.mark.parametrize("last", [False, True], ids=["after", "finally"])
@pytest.mark.parametrize("way", LEAVING)
def test_a_turn_tells_of_the_waits_that_it_has_given_up(way: str, last: bool) -> None:
    run = Run(compiled(left_by(way, last=last))).start()
    (waits,) = [number for number, step in run.state.open.items() if step.component_id == "go"]
    (timer,) = [command for command in run.pending() if isinstance(command, Wait) and command.until is not None]
    happening = Completion(step=timer.step, attempt=timer.attempt)
    turn = advance(run.graph, run.state, [happening], now=timer.until, session={})
    changes = WaitChanges.between(run.state, turn.state, turn.touched)
    assert [*changes.ended] == [waits]
    assert [step.component_id for step in changes.begun.values()] == ["after-0"]


def test_each_attempt_at_a_scope_waits_anew() -> None:
    """What the first has taken is gone; a signal that comes between two attempts is for the second."""
    policy = {"retry": {"maximum_attempts": 2, "initial_interval": "10s"}}
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    parts += [flows.component("try", "flow.try", policy=policy)]
    parts += inside("try", flows.component("go", "flow.wait", name="go"), flows.component("no", "flow.fail", reason="NO"))
    ways = ("start.next try", "try.body go", "go.received no", "try.failure end")
    run = Run(compiled(flows.document(parts, controls(*ways) + datas("try.error end.value")))).start()
    run.tell(Signalled(name="go", key="", value=1, size_bytes=1))
    run.tell(Signalled(name="go", key="", value=2, size_bytes=1))
    assert len(run.state.signals) == 1
    leave(run)
    assert (run.state.phase, run.state.result["reason"], len(run.state.signals)) == ("completed", "NO", 0)
    assert replay(run.graph, run.records) == run.state
