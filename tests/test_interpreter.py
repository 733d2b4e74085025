"""The interpreter: rules of control and data, one by one."""

from __future__ import annotations

import json
from dataclasses import replace

import flows
from blobhub_server.workflow.components.awaits import NEXT_ATTEMPT, signal, time
from blobhub_server.workflow.components.contract import ComponentError, Inputs, Outcome, PortSpec, PureComponent
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.interpreter import (
    Completion,
    Halt,
    Interrupted,
    Record,
    Signalled,
    Stopped,
    StopRequested,
    TimedOut,
    Wait,
    todo,
)
from interpreting import REGISTRY, Run, WaitsForSignal, compiled, replay, signalled_document


def test_five_steps_in_place_are_twelve_records() -> None:
    run = Run(compiled(flows.steps(3))).start()
    assert run.types == [
        "flow.entered",
        *["processor.entered", "processor.exited"] * 5,
        "flow.exited",
    ]
    assert run.state.result == 3


def branches(mode: str = "all") -> str:
    """Start, two scripts side by side, a join, an end; the failure of the left one is handled, and ends its branch."""
    return flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("left", "logic.code", code="pass"),
            flows.component("right", "logic.code", code="pass"),
            flows.component("join", "flow.join", mode=mode),
            flows.component("end", "flow.end"),
            flows.component("handled", "flow.end"),
        ],
        [
            flows.control("start", "left"),
            flows.control("start", "right"),
            flows.control("left", "handled", "failure"),
            flows.control("left", "join", "success"),
            flows.control("right", "join", "success"),
            flows.control("join", "end"),
        ],
    )


def test_a_join_waits_for_all_branches() -> None:
    run = Run(compiled(branches())).start()
    left, right = run.pending()
    run.tell(Completion(step=right.step, attempt=1, result=Outcome(route="success")))
    assert run.exits()["join", "next"] == 0
    run.tell(Completion(step=left.step, attempt=1, result=Outcome(route="success")))
    assert run.exits()["join", "next"] == 1
    assert run.state.phase == "completed"


def test_a_join_of_the_first_swallows_the_others() -> None:
    run = Run(compiled(branches("first"))).start()
    left, right = run.pending()
    run.tell(Completion(step=right.step, attempt=1, result=Outcome(route="success")))
    assert run.exits()["join", "next"] == 1
    run.tell(Completion(step=left.step, attempt=1, result=Outcome(route="success")))
    assert run.exits()["join", "next"] == 1
    assert run.state.phase == "completed"


def test_a_join_whose_branch_never_comes_fails_and_names_it() -> None:
    run = Run(compiled(branches())).start()
    left, right = run.pending()
    run.tell(Completion(step=left.step, attempt=1, result=Outcome(route="failure")))
    run.tell(Completion(step=right.step, attempt=1, result=Outcome(route="success")))
    assert run.state.error["reason"] == "JOIN_STARVED"
    assert "left-success-join" in run.state.error["message"]


def test_an_error_fails_the_execution_when_failure_leads_nowhere() -> None:
    error = ComponentError("broken", reason="SCRIPT_ERROR", line=3, retryable=False)
    run = Run(compiled(flows.code("pass"))).start().finish(lambda _: error)
    assert run.types[-2:] == ["processor.error", "flow.error"]
    assert run.state.error == {
        "reason": "SCRIPT_ERROR",
        "message": "component 'script' failed: broken",
        "component_id": "script",
        "line": 3,
        "attempt": 1,
        "details": None,
    }


def test_an_error_is_cut_in_the_log_whatever_a_component_says() -> None:
    error = ComponentError("no " * 1_000_000, reason="LONG" * 1_000_000)
    run = Run(compiled(flows.code("pass"))).start().finish(lambda _: error)
    for record in run.records[-2:]:
        told = record.public["error"]
        assert (len(told["reason"]), len(told["message"])) == (64, 2_000)
        assert told["message"].endswith("…")


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
    run = Run(compiled(flows.code("pass"))).start().finish(lambda _: Outcome(route="failure"))
    assert run.state.error["reason"] == "UNHANDLED_FAILURE"


def test_a_policy_tries_again_with_growing_waits() -> None:
    policy = {
        "retry": {"maximum_attempts": 4, "initial_interval": "1s", "backoff_coefficient": 3.0, "maximum_interval": "5s"}
    }
    run = Run(compiled(flows.code("pass", policy=policy))).start().finish(lambda _: ComponentError("again"))
    waits = [record.public["until"] - record.at for record in run.records if record.type == "processor.retrying"]
    assert waits == [1.0, 3.0, 5.0]
    assert run.types[-2:] == ["processor.error", "flow.error"]


def test_what_cannot_be_helped_is_not_tried_again() -> None:
    policy = {"retry": {"maximum_attempts": 4}}
    run = Run(compiled(flows.code("pass", policy=policy))).start()
    run.finish(lambda _: ComponentError("no", retryable=False))
    assert "processor.retrying" not in run.types


def test_a_terminal_outcome_ends_everything() -> None:
    run = Run(compiled(branches())).start()
    left, right = run.pending()
    run.tell(Completion(step=left.step, attempt=1, result=Outcome(route="success", terminal=True)))
    assert run.state.phase == "completed"
    assert run.pending() == []
    assert run.tell(Completion(step=right.step, attempt=1, result=Outcome(route="success"))) == []


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
    assert run.pending() == [Wait(step=2, attempt=1, awaits=time(2.5), until=2.5)]
    assert run.finish().state.phase == "completed"


def test_stopping_comes_in_two_steps_and_only_once() -> None:
    run = Run(compiled(flows.delay(2.5))).start()
    run.tell(StopRequested())
    assert run.tell(StopRequested()) == []
    assert run.pending() == [Halt()]
    assert run.tell(Completion(step=2, attempt=1)) == []
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
    assert run.tell(Completion(step=command.step, attempt=1, result=Outcome(route="success"))) == []


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
    assert run.written == {"counter": 3}
    assert replay(graph, run.records) == run.state


def test_a_record_survives_json() -> None:
    run = Run(compiled(counter("session")), session={"counter": 1}).start()
    assert [Record.from_json(record.to_json()) for record in run.records] == run.records


def signalled(**values: object) -> Run:
    """An execution of that."""
    return Run(compiled(signalled_document(**values), ComponentRegistry([*REGISTRY, WaitsForSignal()]))).start()


def test_a_signal_is_waited_for_and_brings_its_value() -> None:
    run = signalled()
    assert run.state.status == "waiting"
    assert run.pending() == [Wait(step=2, attempt=1, awaits=signal("go", "mine", 60.0), until=60.0)]
    run.tell(Completion(step=2, attempt=1, result=Outcome(route="received", outputs={"value": 7})))
    assert (run.state.phase, run.state.result) == ("completed", 7)
    assert run.tell(Completion(step=2, attempt=1)) == [], "the time comes for a step that has ended"
    assert replay(run.graph, run.records) == run.state


def test_a_signal_is_for_the_step_that_waits_for_its_name_and_key() -> None:
    run = signalled()
    for name, key in (("stay", "mine"), ("go", "yours")):
        assert [record.type for record in run.tell(Signalled(name=name, key=key, value=7))] == ["flow.signalled"]
    run.tell(Signalled(name="go", key="mine", value=7))
    assert (run.state.phase, run.state.result) == ("completed", 7)
    assert run.tell(Signalled(name="go", key="mine", value=8)) == []


class Forgetful(PureComponent):
    """Forgets to return its outcome."""

    type = "test.forgetful"
    title = "Forgetful"
    ports = (PortSpec(category="flow_input", route="in", description="Control enters here."),)
    routes = ("success",)

    def run(self, inputs: Inputs) -> Outcome:
        del inputs


def test_a_component_that_gives_nothing_fails() -> None:
    document = flows.document(
        [flows.component("start", "flow.start"), flows.component("it", "test.forgetful")], [flows.control("start", "it")]
    )
    run = Run(compiled(document, ComponentRegistry([*REGISTRY, Forgetful()]))).start()
    assert (run.state.phase, run.state.error["reason"]) == ("failed", "INTERNAL")
    assert "neither an outcome nor an await" in run.state.error["message"]


class Boundless(PureComponent):
    """Gives a value that nests too deep."""

    type = "test.boundless"
    title = "Boundless"
    ports = (
        PortSpec(category="flow_input", route="in", description="Control enters here."),
        PortSpec(category="data_output", route="result", description="The value."),
    )
    routes = ("success",)

    def run(self, inputs: Inputs) -> Outcome:
        value: list[object] = []
        for _ in range(30):
            value = [value]
        return Outcome(route="success", outputs={"result": value})


def test_a_component_that_makes_a_value_beyond_its_bounds_fails() -> None:
    document = flows.document(
        [flows.component("start", "flow.start"), flows.component("it", "test.boundless")], [flows.control("start", "it")]
    )
    run = Run(compiled(document, ComponentRegistry([*REGISTRY, Boundless()]))).start()
    assert (run.state.phase, run.state.error["reason"]) == ("failed", "INVALID_OUTPUT")
    assert "the output 'result'" in run.state.error["message"]
    assert "at most 24" in run.state.error["message"]


def test_a_signal_that_does_not_come_in_time_takes_the_route_of_its_time() -> None:
    run = signalled().finish()
    assert run.exits()["wait", "timeout"] == 1
    assert run.state.result == "too late"


def test_a_signal_may_be_waited_for_without_an_end() -> None:
    (wait,) = signalled(patient=True).pending()
    assert wait.until is None


def test_an_await_survives_replay_and_json() -> None:
    run = signalled()
    records = [Record.from_json(json.loads(json.dumps(record.to_json()))) for record in run.records]
    assert records == run.records
    assert todo(run.graph, replay(run.graph, records), run.now) == run.pending()


def test_what_an_effect_waits_for_is_not_run_again_when_the_time_comes() -> None:
    run = Run(compiled(flows.code("pass"))).start()
    (command,) = run.pending()
    run.tell(Completion(step=command.step, attempt=1, result=time(5)))
    assert run.pending() == [Wait(step=command.step, attempt=1, awaits=time(5), until=5.0)]


def test_the_next_attempt_is_waited_for_and_then_run_without_a_record() -> None:
    policy = {"retry": {"maximum_attempts": 2, "initial_interval": "1s"}}
    run = Run(compiled(flows.code("pass", policy=policy))).start()
    (command,) = run.pending()
    run.tell(Completion(step=command.step, attempt=1, result=ComponentError("again")))
    assert run.pending() == [Wait(step=command.step, attempt=2, awaits=NEXT_ATTEMPT, until=1.0)]
    assert run.tell(Completion(step=command.step, attempt=2)) == []
    assert run.pending() == [Wait(step=command.step, attempt=2, awaits=NEXT_ATTEMPT, until=1.0)], "the time has not come yet"
    run.now = 1.0
    assert run.tell(Completion(step=command.step, attempt=2)) == []
    assert run.pending() == [replace(command, attempt=2, failures=1)]
