"""`flow.loop`: which rounds there are, what each begins with, and what is tried again."""

from __future__ import annotations

from typing import Any

import flows
import pytest
from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.definitions.check import check
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.interpreter import Completion, StopRequested, TimedOut, Wait
from interpreting import REGISTRY
from scoping import Played, controls, datas, inside, script

LOST = ComponentError("no", reason="LOST")
RETRY = {"retry": {"maximum_attempts": 2, "initial_interval": "1s"}}


def gave(value: Any) -> Outcome:
    return Outcome(route="success", outputs={"n": value})


def looped(
    goes_on: str, *, policy: Any = None, handled: bool = True, work: dict[str, Any] | None = None, **values: Any
) -> str:
    """`loop` has `work`, whose output `n` is the next state; then the end, which gives the last state."""
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    parts += [flows.component("loop", "flow.loop", policy=policy, **{"while": goes_on}, **values)]
    parts += inside("loop", work or script("work"), flows.component("done", "flow.end"))
    ways = ["start.next loop", "loop.body work", "work.success done", "loop.success end"]
    data = ["work.n done.value", "loop.state end.value"]
    if handled:
        parts, ways = [*parts, flows.component("bad", "flow.end")], [*ways, "loop.failure bad"]
        data.append("loop.error bad.value")
    return flows.document(parts, controls(*ways) + datas(*data))


def test_rounds_are_run_while_the_expression_is_true_each_with_the_state_of_the_one_before() -> None:
    doubled = flows.component(
        "work", "logic.code", code="", n={"type": "expression", "expression": "[index, steps.loop.state]"}
    )
    run = Played(looped("state < 20", state=3, work=doubled)).start()
    seen = []
    while commands := run.pending():
        (command,) = [command for command in commands if not isinstance(command, Wait)]
        seen.append(command.inputs["n"])
        run.tell(Completion(step=command.step, attempt=1, result=gave(seen[-1][1] * 2)))
    run.check()
    assert (run.state.result, seen) == (24, [[0, 3], [1, 6], [2, 12]])
    assert run.told == [f"{how} body {number}" for number in (1, 2, 3) for how in ("entered", "exited")]
    (left,) = [r for r in run.records if r.type == "processor.exited" and r.component_id == "loop"]
    assert left.private["outputs"] == {"state": 24, "rounds": 3}


def test_a_loop_may_have_no_round() -> None:
    run = Played(looped("state", state=False)).play()
    assert (run.entered, run.state.result) == (["loop", "end"], False)


def test_without_a_state_it_is_null_and_a_round_without_a_value_leaves_it() -> None:
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    parts += [flows.component("loop", "flow.loop", **{"while": "state is None and index < 4"})]
    parts += inside("loop", script("work"))
    document = flows.document(parts, controls("start.next loop", "loop.body work", "loop.success end"))
    run = Played(document).play(work=gave(1))
    assert run.entered == ["loop", "work", "work", "work", "work", "end"]


def test_a_value_object_is_unwrapped_once() -> None:
    run = Played(looped("index < 1", state={"type": "json", "json": {"type": "text", "text": "a"}})).start()
    assert run.state.activations[1].outputs["loop", "state"] == {"type": "text", "text": "a"}


def test_the_expression_sees_inputs_and_values_as_they_are_by_then() -> None:
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    parts += [flows.value("kept", "kept", persistence="execution", value=0)]
    parts += [flows.component("loop", "flow.loop", **{"while": "values.kept < most"}, most=3)]
    parts += inside("loop", flows.component("add", "logic.expression", expression="n + 1"))
    data = ("kept.value add.n", "add.result kept.value", "kept.value end.value")
    document = flows.document(parts, controls("start.next loop", "loop.body add", "loop.success end") + datas(*data))
    assert Played(document).play().state.result == 3


@pytest.mark.parametrize(
    ("goes_on", "reason"),
    [("state + 1", "EXPRESSION_TYPE"), ("9 // (2 - index) > 0", "EXPRESSION_ERROR"), ("state.x", "EXPRESSION_ABSENT")],
)
def test_an_expression_that_decides_nothing_fails_the_loop(goes_on: str, reason: str) -> None:
    given = {"state": {}} if "state.x" in goes_on else {"state": 1}
    run = Played(looped(goes_on, policy=RETRY, **given)).play(work=gave(1))
    assert run.state.result["reason"] == reason
    assert run.state.result["message"].startswith("`while`: ")
    assert "processor.retrying" not in run.types


def test_a_round_that_fails_is_tried_again_from_its_state_and_attempts_count_for_each_round() -> None:
    run = Played(looped("state < 3", state=0, policy=RETRY))
    run.play(work=[LOST, gave(1), LOST, gave(2), gave(3)])
    assert (run.state.result, run.now) == (3, 2.0)
    begun = [(r.public["round"], r.attempt) for r in run.records if r.type == "scope.entered"]
    assert begun == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    assert [r.private for r in run.records if r.type == "scope.entered"] == [{}] * 5, "the state is in no record twice"
    run = Played(looped("state < 3", state=0, policy=RETRY)).play(work=[gave(1), LOST, LOST])
    assert (run.state.result["reason"], run.entered.count("work")) == ("LOST", 3)
    run = Played(looped("True", handled=False)).play(work=[gave(1), LOST])
    assert run.state.error["reason"] == "LOST"


def test_a_timeout_is_for_one_round() -> None:
    run = Played(looped("index < 4", policy={"timeout": "10s"})).start()
    for _ in range(3):
        run.now += 9.0
        (command,) = [command for command in run.pending() if not isinstance(command, Wait)]
        (wait,) = [command for command in run.pending() if isinstance(command, Wait)]
        run.tell(Completion(step=command.step, attempt=1, result=gave(1)))
        run.tell(Completion(step=wait.step, attempt=1))  # the timer of a round that has ended
    (wait,) = [command for command in run.pending() if isinstance(command, Wait)]
    assert wait.until == 37.0
    run.now = wait.until
    run.tell(Completion(step=wait.step, attempt=1))
    assert run.state.result["reason"] == "TIMEOUT"
    run.check()


def test_a_round_sees_nothing_of_the_one_before_but_its_state() -> None:
    seen = {"type": "expression", "expression": "default(steps.work.n, 'none')"}
    parts = [flows.component("start", "flow.start"), flows.component("loop", "flow.loop", **{"while": "index < 2"})]
    parts += inside("loop", script("look", seen=seen), script("work"))
    run = Played(flows.document(parts, controls("start.next loop", "loop.body look", "look.success work"))).start()
    looked = []
    while commands := [command for command in run.pending() if not isinstance(command, Wait)]:
        looked += [command.inputs["seen"] for command in commands if command.component_id == "look"]
        run.tell(Completion(step=commands[0].step, attempt=1, result=gave(1)))
    assert looked == ["none", "none"]


def test_more_rounds_than_the_step_limit_end_the_execution() -> None:
    run = Played(looped("True"), step_limit=5).play(work=gave(1))
    assert (run.state.error["reason"], run.entered.count("work")) == ("STEP_LIMIT", 5)
    assert run.state.error["message"] == "more than 5 rounds of 'loop' were begun"


@pytest.mark.parametrize(("how", "last"), [(StopRequested, "flow.stopped"), (TimedOut, "flow.error")])
def test_a_stop_ends_a_loop_and_what_is_last_within_it_runs(how: Any, last: str) -> None:
    run = Played(looped("True")).play(work=how())
    assert (run.types[-1], run.entered) == (last, ["loop", "work"])
    parts = [flows.component("start", "flow.start"), flows.component("loop", "flow.loop", **{"while": "True"})]
    parts += inside("loop", flows.component("try", "flow.try"))
    parts += inside("try", script("work"), script("clean"))
    ways = controls("start.next loop", "loop.body try", "try.body work", "try.finally clean")
    run = Played(flows.document(parts, ways)).play(work=[gave(1), how()])
    assert run.entered == ["loop", "try", "work", "clean", "try", "work", "clean"]
    assert run.types[-1] == last


def test_loops_within_each_other_have_each_their_own_index() -> None:
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    parts += [flows.component("outer", "flow.loop", **{"while": "index < 2"}, state=[])]
    inner = flows.component(
        "inner", "flow.loop", **{"while": "index < 3"}, state={"type": "expression", "expression": "steps.outer.state"}
    )
    number = {"type": "expression", "expression": "steps.inner.state + [10 * steps.outer.index + index]"}
    parts += inside("outer", inner, flows.component("out", "flow.end"))
    parts += inside("inner", flows.component("in", "flow.end", value=number))
    ways = ("start.next outer", "outer.body inner", "inner.body in", "inner.success out", "outer.success end")
    document = flows.document(parts, controls(*ways) + datas("inner.state out.value", "outer.state end.value"))
    assert check(parse(document.encode()), REGISTRY) == []
    assert Played(document).play().state.result == [0, 1, 2, 10, 11, 12]


def test_the_memory_of_states_is_given_back() -> None:
    run = Played(looped("index < 50", state="x" * 1000)).play(work=gave("y" * 1000))
    assert run.state.ended
    run = Played(looped("index < 50", state="x" * 1000)).start()
    sizes = []
    for number in range(49):
        (command,) = [command for command in run.pending() if not isinstance(command, Wait)]
        run.tell(Completion(step=command.step, attempt=1, result=gave(str(number % 10) * 10_000)))
        sizes.append(run.state.holdings.bytes)
    assert len(set(sizes)) == 1
    assert 10_000 < sizes[0] < 20_000


@pytest.mark.parametrize(
    ("goes_on", "message"),
    [
        ("session.visits > 1", "`session` is not seen here: a data input that is an expression brings its value"),
        ("item", "there is `item` inside of a `flow.each` alone"),
        ("state +", "is not a Python expression"),
        ("nothing", "there is no name `nothing`; there are error, index, input, inputs, state, steps, values"),
    ],
)
def test_check_tells_what_is_wrong_with_the_expression(goes_on: str, message: str) -> None:
    problem, *_ = check(parse(looped(goes_on).encode()), REGISTRY)
    assert (problem.component_id, problem.path) == ("loop", "components[2].ports[0].value")
    assert problem.line == 1
    assert message in problem.message


def test_what_a_round_is_given_is_not_seen_outside_of_it() -> None:
    parts = [flows.component("start", "flow.start"), flows.component("loop", "flow.loop", **{"while": "index < 2"})]
    parts += [*inside("loop", script("work")), flows.component("end", "flow.end")]
    ways = controls("start.next loop", "loop.body work", "loop.success end")

    def told(port: Any = None, *data: str) -> list[tuple[str, str]]:
        made = parts if port is None else [*parts[:-1], flows.component("end", "flow.end", value=port)]
        return [(p.path, p.message) for p in check(parse(flows.document(made, ways + datas(*data)).encode()), REGISTRY)]

    path = "components[3].ports[0].value.expression"
    assert told({"type": "expression", "expression": "steps.loop.state"}) == told(None, "loop.rounds end.value") == []
    assert told({"type": "expression", "expression": "index"}) == [
        (path, "there is `index` inside of a `flow.each` or a `flow.loop` alone")
    ]
    message = "`loop` gives the output `index` inside alone"
    assert told({"type": "expression", "expression": "steps.loop.index"}) == [(path, message)]
    message = "'loop' gives 'index' inside alone, and 'end' is not inside of it"
    assert told(None, "loop.index end.value") == [("connections[3]", message)]
    assert told(None, "loop.index work.n") == []
