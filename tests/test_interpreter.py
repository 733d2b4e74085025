"""The interpreter: rules of control and data, one by one."""

from __future__ import annotations

import flows
from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.interpreter import (
    Interrupted,
    Record,
    StepCompleted,
    Stopped,
    StopRequested,
    TimedOut,
    Timer,
    TimerFired,
    replay,
    session_writes,
)
from interpreting import Run, compiled


def test_five_steps_in_place_are_twelve_records() -> None:
    run = Run(compiled(flows.steps(3))).start()
    assert run.types == [
        "flow.entered",
        *["processor.entered", "processor.exited"] * 5,
        "flow.exited",
    ]
    assert run.state.result == 3


def branches(mode: str = "all", *, third: bool = True) -> str:
    """Start, two scripts side by side, a join, an end."""
    return flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("left", "logic.code", code="pass"),
            flows.component("right", "logic.code", code="pass"),
            flows.component("join", "flow.join", mode=mode),
            flows.component("end", "flow.end"),
        ],
        [
            flows.control("start", "left"),
            flows.control("start", "right"),
            flows.control("left", "join", "success"),
            flows.control("right", "join", "success"),
            flows.control("join", "end"),
        ],
    )


def test_a_join_waits_for_all_branches() -> None:
    run = Run(compiled(branches())).start()
    left, right = run.pending()
    run.tell(StepCompleted(right.step, 1, Outcome("success"), 0.0))
    assert run.exits()["join", "next"] == 0
    run.tell(StepCompleted(left.step, 1, Outcome("success"), 0.0))
    assert run.exits()["join", "next"] == 1
    assert run.state.phase == "completed"


def test_a_join_of_the_first_swallows_the_others() -> None:
    run = Run(compiled(branches("first"))).start()
    left, right = run.pending()
    run.tell(StepCompleted(right.step, 1, Outcome("success"), 0.0))
    assert run.exits()["join", "next"] == 1
    run.tell(StepCompleted(left.step, 1, Outcome("success"), 0.0))
    assert run.exits()["join", "next"] == 1
    assert run.state.phase == "completed"


def test_a_join_whose_branch_never_comes_fails_and_names_it() -> None:
    run = Run(compiled(branches())).start()
    left, right = run.pending()
    run.tell(StepCompleted(left.step, 1, Outcome("elsewhere"), 0.0))
    run.tell(StepCompleted(right.step, 1, Outcome("success"), 0.0))
    assert run.state.error["reason"] == "JOIN_STARVED"
    assert "left-success-join" in run.state.error["message"]


def test_an_error_fails_the_execution_when_failure_leads_nowhere() -> None:
    error = ComponentError("broken", reason="SCRIPT_ERROR", line=3, retryable=False)
    run = Run(compiled(flows.code("pass"))).start().finish(lambda _: error)
    assert run.types[-2:] == ["processor.error", "flow.error"]
    assert run.state.error == {
        "reason": "SCRIPT_ERROR",
        "message": "component 'script' failed: broken",
        "line": 3,
    }


def test_an_error_takes_the_failure_route_when_there_is_one() -> None:
    document = flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("script", "logic.code", code="pass"),
            flows.component("end", "flow.end"),
        ],
        [flows.control("start", "script"), flows.control("script", "end", "failure")],
    )
    run = Run(compiled(document)).start().finish(lambda _: ComponentError("broken"))
    assert run.state.phase == "completed"
    assert run.exits()["end", "end"] == 1


def test_the_outcome_failure_without_a_connection_fails() -> None:
    run = Run(compiled(flows.code("pass"))).start().finish(lambda _: Outcome("failure"))
    assert run.state.error["reason"] == "UNHANDLED_FAILURE"


def test_a_policy_tries_again_with_growing_waits() -> None:
    policy = {"retry": {"attempts": 4, "first_interval": "1s", "factor": 3.0, "cap": "5s"}}
    run = Run(compiled(flows.code("pass", policy=policy))).start().finish(lambda _: ComponentError("again"))
    waits = [record.public["until"] - record.at for record in run.records if record.type == "processor.retrying"]
    assert waits == [1.0, 3.0, 5.0]
    assert run.types[-2:] == ["processor.error", "flow.error"]


def test_what_cannot_be_helped_is_not_tried_again() -> None:
    policy = {"retry": {"attempts": 4}}
    run = Run(compiled(flows.code("pass", policy=policy))).start()
    run.finish(lambda _: ComponentError("no", retryable=False))
    assert "processor.retrying" not in run.types


def test_a_terminal_outcome_ends_everything() -> None:
    run = Run(compiled(branches())).start()
    left, right = run.pending()
    run.tell(StepCompleted(left.step, 1, Outcome("success", terminal=True), 0.0))
    assert run.state.phase == "completed"
    assert run.pending() == []
    assert run.tell(StepCompleted(right.step, 1, Outcome("success"), 0.0)) == []


def test_a_cycle_is_bounded_by_the_step_limit() -> None:
    document = flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("loop", "logic.expression", expression="1"),
        ],
        [flows.control("start", "loop"), flows.control("loop", "loop", "success")],
    )
    run = Run(compiled(document), step_limit=500).start()
    assert run.state.error["reason"] == "STEP_LIMIT"
    assert run.state.steps == 500


def test_a_delay_is_a_wait_until_a_time() -> None:
    run = Run(compiled(flows.delay(2.5))).start()
    assert run.state.status == "waiting"
    assert run.pending() == [Timer(2, 2.5)]
    assert run.finish().state.phase == "completed"


def test_stopping_comes_in_two_steps_and_only_once() -> None:
    run = Run(compiled(flows.delay(2.5))).start()
    run.tell(StopRequested())
    assert run.tell(StopRequested()) == []
    assert run.pending() == []
    assert run.tell(TimerFired(2)) == []
    run.tell(Stopped())
    assert run.types[-2:] == ["flow.stopping", "flow.stopped"]
    assert run.tell(TimedOut()) == []


def test_an_execution_that_takes_too_long_fails() -> None:
    run = Run(compiled(flows.delay(2.5))).start()
    run.tell(TimedOut())
    assert run.state.error["reason"] == "TIMEOUT"


def test_an_interrupted_step_gets_a_higher_attempt_and_the_old_one_is_not_heard() -> None:
    run = Run(compiled(flows.code("pass"))).start()
    (command,) = run.pending()
    run.tell(Interrupted(command.step))
    (again,) = run.pending()
    assert (again.step, again.attempt) == (command.step, 2)
    assert run.tell(StepCompleted(command.step, 1, Outcome("success"), 0.0)) == []


def counter(persistence: str) -> str:
    """Adds one to a value, three times round, then ends with it."""
    return flows.document(
        [
            flows.component("start", "flow.start"),
            flows.value("counter", "counter", persistence=persistence, value=0),
            flows.component("add", "logic.expression", expression="n + 1"),
            flows.component("again", "flow.switch", cases=[{"route": "more", "when": "n < 3"}]),
            flows.component("end", "flow.end"),
        ],
        [
            flows.control("start", "add"),
            flows.control("add", "again", "success"),
            flows.control("again", "add", "more"),
            flows.control("again", "end", "default"),
            flows.data("counter", "value", "add", "n"),
            flows.data("add", "result", "counter", "value"),
            flows.data("counter", "value", "again", "n"),
            flows.data("counter", "value", "end", "value"),
        ],
    )


def test_a_value_of_the_execution_is_read_and_written() -> None:
    assert Run(compiled(counter("execution"))).start().state.result == 3
    assert Run(compiled(counter("execution"))).start(counter=2).state.result == 3
    assert Run(compiled(counter("execution"))).start(counter=7).state.result == 8


def test_a_value_of_the_session_is_read_and_written_and_replays_without_the_session() -> None:
    graph = compiled(counter("session"))
    run = Run(graph, session={"counter": 1}).start()
    assert run.state.result == 3
    assert session_writes(graph, run.records) == {"counter": 3}
    assert replay(graph, run.records) == run.state


def test_a_record_survives_json() -> None:
    run = Run(compiled(counter("session")), session={"counter": 1}).start()
    assert [Record.from_json(record.to_json()) for record in run.records] == run.records
