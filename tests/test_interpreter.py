"""The interpreter: rules of control and data one by one, then properties over random graphs."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import flows
import pytest
from blobhub_server.workflow.check import check
from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.definition import parse
from blobhub_server.workflow.interpreter import (
    Continue,
    ExecutionState,
    Graph,
    Interrupted,
    Record,
    RunStep,
    Started,
    StepCompleted,
    StepFailed,
    Stopped,
    StopRequested,
    TimedOut,
    Timer,
    TimerFired,
    advance,
    replay,
    session_writes,
    todo,
)
from hypothesis import given, settings
from hypothesis import strategies as st

REGISTRY = ComponentRegistry.load()
TERMINAL = {"flow.exited", "flow.error", "flow.stopped"}


def compiled(document: str) -> Graph:
    definition = parse(document.encode())
    assert check(definition, REGISTRY) == []
    return Graph.compile(definition, REGISTRY)


class Run:
    """Drives the interpreter as a runtime does, but in one's own time."""

    def __init__(self, graph: Graph, *, step_limit: int = 10_000, session: dict[str, Any] | None = None) -> None:
        self.graph = graph
        self.state = ExecutionState(step_limit=step_limit)
        self.session = session or {}
        self.now = 0.0
        self.records: list[Record] = []

    def tell(self, happening) -> list[Record]:
        made = advance(self.graph, self.state, happening, now=self.now, session=self.session)
        self.records += made
        while self.state.runnable:
            made = advance(self.graph, self.state, Continue(), now=self.now, session=self.session)
            self.records += made
        return made

    def start(self, **inputs: Any) -> Run:
        self.tell(Started(inputs))
        return self

    def pending(self) -> list[Any]:
        return todo(self.graph, self.state)

    def finish(self, outcome=lambda command: Outcome("success"), pick=lambda commands: commands[0]) -> Run:
        """Do what is asked for until nothing is."""
        while commands := self.pending():
            command = pick(commands)
            if isinstance(command, Timer):
                self.now = max(self.now, command.until)
                self.tell(TimerFired(command.step))
                continue
            self.now = max(self.now, command.not_before)
            result = outcome(command)
            if isinstance(result, ComponentError):
                self.tell(StepFailed(command.step, command.attempt, result))
            else:
                self.tell(StepCompleted(command.step, command.attempt, result, 0.1))
        return self

    @property
    def types(self) -> list[str]:
        return [record.type for record in self.records]

    def exits(self) -> Counter:
        return Counter(
            (record.component_id, record.public["route"]) for record in self.records if record.type == "processor.exited"
        )


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


# --- properties ------------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn, *, acyclic: bool = False) -> str:
    """Random graphs: expressions, scripts, delays, switches and joins, with forks, and with cycles unless `acyclic`."""
    count = draw(st.integers(1, 8))
    kinds = draw(
        st.lists(
            st.sampled_from(["expression", "bad", "code", "delay", "switch", "join"]),
            min_size=count,
            max_size=count,
        )
    )
    made = {
        "expression": lambda name: flows.component(name, "logic.expression", expression="1 + 1"),
        "bad": lambda name: flows.component(name, "logic.expression", expression="missing + 1"),
        "code": lambda name: flows.component(name, "logic.code", code="pass"),
        "delay": lambda name: flows.component(name, "flow.delay", seconds=1),
        "switch": lambda name: flows.component(name, "flow.switch", cases=[{"route": "a", "when": "true"}]),
        "join": lambda name: flows.component(name, "flow.join", mode="all"),
    }
    routes = {"expression": ["success", "failure"], "bad": ["success", "failure"], "code": ["success", "failure"],
              "delay": ["next"], "switch": ["a", "default"], "join": ["next"]}  # fmt: skip
    names = [f"{kind}-{number}" for number, kind in enumerate(kinds)]
    components = [
        flows.component("start", "flow.start"),
        *(made[kind](name) for kind, name in zip(kinds, names, strict=True)),
    ]
    connections = [flows.control("start", names[0])]
    for number in range(1, count):
        source = draw(st.integers(0, number - 1))
        connections.append(flows.control(names[source], names[number], draw(st.sampled_from(routes[kinds[source]]))))
    for _ in range(draw(st.integers(0, count))):
        source = draw(st.integers(0, count - 1))
        low = source + 1 if acyclic else 0
        if low < count:
            target = draw(st.integers(low, count - 1))
            connections.append(flows.control(names[source], names[target], draw(st.sampled_from(routes[kinds[source]]))))
    unique = {connection["id"]: connection for connection in connections}
    return flows.document(components, list(unique.values()))


def graph_of(document: str) -> Graph:
    return Graph.compile(parse(document.encode()), REGISTRY)


def random_outcome(seed: random.Random):
    def outcome(command: RunStep):
        return ComponentError("unlucky") if seed.random() < 0.2 else Outcome("success")

    return outcome


@settings(max_examples=300, deadline=None)
@given(graphs(), st.integers(0, 2**32))
def test_every_graph_ends_once_within_its_step_limit(document: str, number: int) -> None:
    seed = random.Random(number)
    run = Run(graph_of(document), step_limit=60).start()
    run.finish(random_outcome(seed), pick=seed.choice)
    assert run.state.ended
    assert run.state.steps <= 60
    assert sum(kind in TERMINAL for kind in run.types) == 1
    assert run.types[-1] in TERMINAL
    assert run.types[0] == "flow.entered"


@settings(max_examples=200, deadline=None)
@given(graphs(), st.integers(0, 2**32))
def test_replaying_any_prefix_gives_the_state_of_that_moment(document: str, number: int) -> None:
    seed = random.Random(number)
    graph = graph_of(document)
    run = Run(graph, step_limit=40)
    snapshots: list[tuple[int, ExecutionState]] = []

    def pick(commands):
        snapshots.append((len(run.records), replay(graph, run.records, step_limit=40)))
        assert snapshots[-1][1] == run.state, "the live state is not what the log says"
        return seed.choice(commands)

    run.start().finish(random_outcome(seed), pick=pick)
    assert replay(graph, run.records, step_limit=40) == run.state
    for length, state in snapshots:
        assert replay(graph, run.records[:length], step_limit=40) == state
    for length in range(len(run.records) + 1):
        state = replay(graph, run.records[:length], step_limit=40)
        following = ExecutionState(step_limit=40)
        for record in run.records[:length]:
            replay_into(graph, following, record)
        assert following == state


def replay_into(graph: Graph, state: ExecutionState, record: Record) -> None:
    from blobhub_server.workflow.interpreter import apply  # noqa: PLC0415  beside its only use

    apply(graph, state, record)


@settings(max_examples=200, deadline=None)
@given(graphs(acyclic=True), st.integers(0, 2**32), st.integers(0, 2**32))
def test_the_order_of_independent_completions_does_not_change_the_outcome(document: str, one: int, other: int) -> None:
    """Components succeed or fail by their names, and are finished in two orders.

    Graphs here have no cycles, no `first` joins and no two writers of one value: with those the order is the meaning.
    Executions that fail end at the first failure to come, so what had been done by then depends on the order; what they
    share is that they fail.
    """
    graph = graph_of(document)

    def outcome(command: RunStep):
        return ComponentError("by name") if command.component_id.endswith(("3", "5")) else Outcome("success")

    ends = []
    for number in (one, other):
        seed = random.Random(number)
        run = Run(graph, step_limit=2_000).start()
        ends.append(run.finish(outcome, pick=seed.choice))
    first, second = ends
    assert first.state.phase == second.state.phase
    if first.state.phase == "completed":
        assert first.state.result == second.state.result
        assert first.exits() == second.exits()


@pytest.mark.parametrize("budget", [1, 3])
def test_a_small_budget_changes_nothing_but_the_pace(budget: int) -> None:
    graph = compiled(flows.steps(10))
    whole = Run(graph).start()
    state, records = ExecutionState(), []
    records += advance(graph, state, Started({}), now=0.0, session={}, budget=budget)
    while state.runnable:
        made = advance(graph, state, Continue(), now=0.0, session={}, budget=budget)
        assert len(made) <= 2 * budget + 1
        records += made
    assert records == whole.records
