"""`flow.try`: how a body ends, what of it is tried again, and when `finally` runs."""

from __future__ import annotations

from typing import Any

import flows
import pytest
from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.interpreter import Cancel, Completion, StopRequested, TimedOut, Wait, todo
from interpreting import replay
from scoping import Played, controls, datas, inside, script, tried

LOST = ComponentError("no", reason="LOST")
MADE = Outcome(route="success", outputs={"n": 5})
RETRY = {"retry": {"maximum_attempts": 3, "initial_interval": "1s"}}


def test_the_value_of_an_end_inside_is_the_scopes_value() -> None:
    run = Played(tried(last=False)).play(work=MADE)
    assert run.state.result == 5
    assert run.told == ["entered body 1", "exited body 1"]
    assert [record.activation for record in run.records if record.component_id == "work"] == [1, 1]


def test_a_body_without_an_end_ends_when_no_token_is_left_and_has_no_value() -> None:
    parts = [flows.component("start", "flow.start"), flows.component("try", "flow.try"), flows.component("end", "flow.end")]
    parts += inside("try", script("a"), script("b"))
    ways = ("start.next try", "try.body a", "try.body b", "try.success end")
    run = Played(flows.document(parts, controls(*ways))).play(a=MADE)
    assert run.types[-1] == "flow.exited"
    assert run.entered == ["try", "a", "b", "end"]


def test_an_end_inside_cancels_what_still_runs_there_and_nothing_else() -> None:
    parts = [flows.component("start", "flow.start"), flows.component("try", "flow.try"), script("beside"), script("after")]
    parts += inside("try", script("quick"), script("slow"), flows.component("done", "flow.end"))
    ways = (
        "start.next try",
        "start.next beside",
        "try.body quick",
        "try.body slow",
        "quick.success done",
        "try.success after",
    )
    run = Played(flows.document(parts, controls(*ways))).start()
    steps = {step.component_id: number for number, step in run.state.open.items()}
    run.tell(Completion(step=steps["quick"], attempt=1, result=Outcome(route="success")))
    assert {step.component_id for step in run.state.open.values()} == {"beside", "after"}
    assert Cancel(steps["slow"]) in todo(run.graph, run.state, 0.0, run.state.open)
    before = run.state
    run.tell(Completion(step=steps["slow"], attempt=1, result=LOST))
    assert run.state == before
    run.play()
    assert run.types[-1] == "flow.exited"


def test_an_error_inside_that_nobody_handles_takes_the_scopes_failure() -> None:
    run = Played(tried()).play(work=LOST)
    assert run.state.result["reason"] == "LOST"
    assert run.state.result["component_id"] == "work"
    run = Played(tried(handled=False)).play(work=LOST)
    assert (run.state.error["reason"], run.state.error["message"]) == ("LOST", "component 'work' failed: no")


def test_an_error_that_is_handled_inside_stays_inside() -> None:
    parts = [flows.component("start", "flow.start"), flows.component("try", "flow.try"), flows.component("end", "flow.end")]
    parts += inside("try", script("a"), flows.component("done", "flow.end", value="handled"))
    ways = ("start.next try", "try.body a", "a.failure done", "try.success end")
    run = Played(flows.document(parts, controls(*ways) + datas("try.value end.value"))).play(a=LOST)
    assert run.state.result == "handled"


def test_the_whole_body_is_tried_again_and_then_what_is_last_runs_once() -> None:
    run = Played(tried(policy=RETRY)).play(work=[LOST, LOST, MADE])
    assert run.entered == ["try", "work", "work", "work", "done", "clean", "end"]
    assert (run.state.result, run.now) == (5, 3.0)
    run = Played(tried(policy=RETRY)).play(work=LOST)
    assert run.entered == ["try", "work", "work", "work", "clean", "bad"]
    (error,) = [record for record in run.records if record.type == "processor.error" and record.component_id == "try"]
    assert error.public["attempt"] == 3


@pytest.mark.parametrize("reasons", [{"non_retryable_reasons": ["LOST"]}, {"retryable_reasons": ["OTHER"]}])
def test_a_body_is_not_tried_again_for_other_reasons(reasons: dict[str, Any]) -> None:
    run = Played(tried(policy={"retry": RETRY["retry"] | reasons})).play(work=LOST)
    assert run.entered == ["try", "work", "clean", "bad"]


def test_an_attempt_at_a_body_that_takes_too_long_is_cancelled_and_tried_again() -> None:
    run = Played(tried(policy=RETRY | {"timeout": "10s"})).start()
    for attempt in (1, 2, 3):
        (wait,) = [command for command in run.pending() if isinstance(command, Wait)]
        assert wait.attempt == attempt
        run.tell(Completion(step=wait.step, attempt=attempt))  # too early: nothing comes of it
        run.now = wait.until
        run.tell(Completion(step=wait.step, attempt=attempt))
        if attempt < 3:
            (wait,) = run.pending()
            run.now = wait.until
            run.tell(Completion(step=wait.step, attempt=attempt + 1))
    run.play()
    assert run.entered == ["try", "work", "work", "work", "clean", "bad"]
    assert (run.state.result["reason"], run.state.result["message"]) == ("TIMEOUT", "took longer than 10 s")


def test_a_new_attempt_sees_nothing_of_the_one_before() -> None:
    parts = [flows.component("start", "flow.start"), flows.component("try", "flow.try", policy=RETRY)]
    parts += inside(
        "try", script("a"), script("b", ports=[flows.port("data_input", "n", "none")]), flows.component("done", "flow.end")
    )
    ways = ("start.next try", "try.body a", "a.success b", "b.success done")
    run = Played(flows.document(parts, controls(*ways) + datas("a.n b.n"))).start()
    seen = []
    for outputs in ({"n": 1}, {}):
        (command,) = [command for command in run.pending() if not isinstance(command, Wait)]
        run.tell(Completion(step=command.step, attempt=1, result=Outcome(route="success", outputs=outputs)))
        (command,) = [command for command in run.pending() if not isinstance(command, Wait)]
        seen.append(command.inputs["n"])
        run.tell(Completion(step=command.step, attempt=1, result=LOST))
        waits = [command for command in run.pending() if command.until is not None]
        run.now = waits[0].until
        run.tell(Completion(step=waits[0].step, attempt=waits[0].attempt))
    assert seen == [1, "none"]


def test_a_join_forgets_the_tokens_of_an_attempt_that_is_given_up() -> None:
    parts = [flows.component("start", "flow.start"), flows.component("try", "flow.try", policy=RETRY)]
    parts += inside(
        "try", script("a"), script("b"), flows.component("join", "flow.join"), flows.component("done", "flow.end")
    )
    ways = ("start.next try", "try.body a", "try.body b", "a.success join", "b.success join", "join.next done")
    run = Played(flows.document(parts, controls(*ways))).play(b=[LOST, Outcome(route="success")])
    assert run.entered.count("join") == 1
    assert run.types[-1] == "flow.exited"
    run = Played(
        flows.document(parts, controls(*ways[:3], "a.success join", "b.other join", "join.next done", "b.success done"))
    )
    run.play(a=Outcome(route="success"), b=Outcome(route="success"))
    assert run.types[-1] == "flow.exited", "an end inside leaves a join that waits"


def test_a_join_that_starves_fails_its_scope() -> None:
    parts = [flows.component("start", "flow.start"), flows.component("try", "flow.try"), flows.component("bad", "flow.end")]
    parts += inside("try", script("a"), script("b"), script("c"), flows.component("join", "flow.join"))
    ways = ("start.next try", "try.body a", "try.body b", "a.success join", "b.success join", "b.other c", "try.failure bad")
    text = flows.document(parts, controls(*ways) + datas("try.error bad.value"))
    assert Played(text).play(b=Outcome(route="other")).state.result["reason"] == "JOIN_STARVED"
    assert Played(text).play(b=Outcome(route="failure")).state.result["reason"] == "UNHANDLED_FAILURE"


ENDS = {
    "a stop": (StopRequested, "flow.stopped", "STOPPED"),
    "a timeout": (TimedOut, "flow.error", "TIMEOUT"),
    "a terminal end": (lambda: Outcome(route="success", terminal=True), "flow.exited", None),
}


@pytest.mark.parametrize("how", ENDS)
def test_what_is_last_runs_also_on(how: str) -> None:
    made, last, reason = ENDS[how]
    run = Played(tried(policy=RETRY)).play(work=made())
    assert (run.entered, run.types[-1]) == (["try", "work", "clean"], last)
    (given,) = [
        record.private for record in run.records if record.type == "scope.entered" and record.public["part"] == "finally"
    ]
    assert given.get("outputs", {}).get("error", {}).get("reason") == reason


@pytest.mark.parametrize("how", ENDS)
def test_what_is_last_may_fail_or_take_too_long_also_on(how: str) -> None:
    made, last, _ = ENDS[how]
    run = Played(tried()).play(work=made(), clean=LOST)
    assert run.types[-1] == ("flow.error" if how == "a terminal end" else last)
    if how != "a terminal end":
        run = Played(tried()).start()
        run.tell(made())
        (wait,) = [command for command in run.pending() if isinstance(command, Wait) and command.until is not None]
        run.now = wait.until
        run.tell(Completion(step=wait.step, attempt=wait.attempt))
        assert (run.types[-1], run.now) == (last, 30.0)
        run.check()


def test_a_stop_while_a_body_waits_for_its_next_attempt_runs_what_is_last() -> None:
    run = Played(tried(policy=RETRY)).start()
    (command,) = [command for command in run.pending() if not isinstance(command, Wait)]
    run.tell(Completion(step=command.step, attempt=1, result=LOST))
    assert run.types[-1] == "processor.retrying"
    run.tell(StopRequested())
    run.play()
    assert (run.entered, run.types[-1]) == (["try", "work", "clean"], "flow.stopped")


def test_a_stop_while_what_is_last_runs_lets_it_end() -> None:
    run = Played(tried()).start()
    (command,) = [command for command in run.pending() if not isinstance(command, Wait)]
    run.tell(Completion(step=command.step, attempt=1, result=LOST))
    run.tell(StopRequested())
    assert [step.component_id for step in run.state.open.values()] == ["try", "clean"]
    run.play()
    assert (run.entered, run.types[-1]) == (["try", "work", "clean"], "flow.stopped")


def test_without_anything_last_a_stop_ends_all_at_once() -> None:
    run = Played(tried(last=False)).play(work=StopRequested())
    assert run.types[-2:] == ["flow.stopping", "flow.stopped"]


def test_nothing_runs_after_the_step_limit_which_counts_for_each_activation() -> None:
    run = Played(tried(), step_limit=3).play(work=MADE)
    assert run.types[-1] == "flow.exited", "start, try and end outside, work and done inside, clean"
    run = Played(tried(), step_limit=1).play()
    assert (run.state.error["reason"], run.entered) == ("STEP_LIMIT", [])


def test_an_error_of_what_is_last_takes_the_place_of_the_bodys() -> None:
    run = Played(tried()).play(work=LOST, clean=ComponentError("dirty", reason="DIRT", details=[1]))
    error = run.state.result
    assert (error["reason"], error["component_id"], error["details"]["details"]) == ("DIRT", "clean", [1])
    assert error["details"]["body"]["reason"] == "LOST"
    run = Played(tried()).play(work=MADE, clean=ComponentError("dirty", reason="DIRT"))
    assert (run.state.result["reason"], run.state.result["details"]) == ("DIRT", None)


def nested() -> str:
    """In `outer` run `fail` and, beside it, `inner` with `work`; both have something last."""
    parts = [
        flows.component("start", "flow.start"),
        flows.component("outer", "flow.try"),
        flows.component("bad", "flow.end"),
    ]
    parts += inside("outer", script("fail"), flows.component("inner", "flow.try"), script("outer-last"))
    parts += inside("inner", script("work"), script("inner-last"))
    ways = ("start.next outer", "outer.body inner", "outer.body fail", "outer.finally outer-last", "outer.failure bad")
    more = ("inner.body work", "inner.finally inner-last")
    return flows.document(parts, controls(*ways, *more) + datas("outer.error bad.value"))


@pytest.mark.parametrize("last", [True, False])
def test_what_fails_in_an_inner_scope_is_tried_again_with_the_outer_one(last: bool) -> None:
    parts = [flows.component("start", "flow.start"), flows.component("outer", "flow.try", policy=RETRY)]
    parts += [flows.component("end", "flow.end")]
    parts += inside("outer", flows.component("inner", "flow.try"))
    parts += inside("inner", script("work"), *([script("last")] if last else []))
    ways = ["start.next outer", "outer.body inner", "inner.body work", "outer.success end"]
    document = flows.document(parts, controls(*ways, *(["inner.finally last"] if last else [])))
    entered = ["inner", "work", *(["last"] if last else [])]
    run = Played(document).play(work=[LOST, MADE])
    assert run.entered == ["outer", *entered, *entered, "end"]
    run = Played(document).play(work=ComponentError("never", reason="NEVER", retryable=False))
    assert run.entered == ["outer", *entered]
    assert run.state.error["reason"] == "NEVER"


def test_a_scope_that_is_left_from_around_it_runs_what_is_last_before_the_one_around_it() -> None:
    run = Played(nested()).start()
    fail = next(number for number, step in run.state.open.items() if step.component_id == "fail")
    run.tell(Completion(step=fail, attempt=1, result=LOST))
    assert [step.component_id for step in run.state.open.values()] == ["outer", "inner", "inner-last"]
    run.play()
    assert run.entered == ["outer", "inner", "fail", "work", "inner-last", "outer-last", "bad"]
    assert run.state.result["reason"] == "LOST"
    assert run.told == [
        *("entered body 1", "entered body 2", "ending  1", "exited body 2", "entered finally 3", "exited finally 3"),
        *("exited body 1", "entered finally 4", "exited finally 4"),
    ]


def test_a_stop_runs_what_is_last_from_the_inside_out() -> None:
    run = Played(nested()).start()
    run.tell(StopRequested())
    run.play()
    assert run.entered[-2:] == ["inner-last", "outer-last"]
    assert run.types[-1] == "flow.stopped"


def test_a_component_in_a_scope_takes_what_is_outside_and_values_may_be_written_from_inside() -> None:
    parts = [
        flows.component("start", "flow.start"),
        script("before"),
        flows.component("try", "flow.try"),
        flows.component("end", "flow.end"),
    ]
    parts += [flows.value("kept", "kept", persistence="execution", value=0)]
    parts += inside("try", flows.component("add", "logic.expression", expression="n + 1"))
    ways = ("start.next before", "before.success try", "try.body add", "try.success end")
    data = ("before.n add.n", "add.result kept.value", "kept.value end.value")
    run = Played(flows.document(parts, controls(*ways) + datas(*data))).play(before=MADE)
    assert run.state.result == 6


def test_expressions_in_ports_see_what_is_outside_and_nothing_of_another_attempt() -> None:
    port = {"type": "expression", "expression": "[steps.before.n, default(steps.again.n, 'none')]"}
    parts = [flows.component("start", "flow.start"), script("before"), flows.component("try", "flow.try", policy=RETRY)]
    parts += inside("try", script("again"), script("work", seen=port), flows.component("done", "flow.end"))
    ways = controls("start.next before", "before.success try", "try.body again", "again.success work", "work.success done")
    run = Played(flows.document(parts, ways)).start()
    seen = []
    for outputs in ({"n": 1}, {"n": 2}, {"n": 3}, {}):
        (command,) = [command for command in run.pending() if not isinstance(command, Wait)]
        run.tell(Completion(step=command.step, attempt=1, result=Outcome(route="success", outputs=outputs)))
        if run.state.open[max(run.state.open)].component_id != "work":
            continue
        (command,) = [command for command in run.pending() if not isinstance(command, Wait)]
        seen.append(command.inputs["seen"])
        if len(seen) == 3:
            break
        run.tell(Completion(step=command.step, attempt=1, result=LOST))
        wait = next(command for command in run.pending() if command.until is not None)
        run.now = wait.until
        run.tell(Completion(step=wait.step, attempt=wait.attempt))
    assert seen == [[1, 2], [1, 3], [1, "none"]]


def test_whoever_handles_a_scopes_error_knows_its_origin() -> None:
    run = Played(tried()).start()
    (command,) = [command for command in run.pending() if not isinstance(command, Wait)]
    run.tell(Completion(step=command.step, attempt=1, result=LOST))
    origins = {step.component_id: step.origin for step in run.state.open.values()}
    assert origins == {"try": "", "clean": "try"}
    assert replay(run.graph, run.records) == run.state
