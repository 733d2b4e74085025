"""The interpreter over random graphs: it ends, it replays, and independent order does not matter."""

from __future__ import annotations

import copy
import random

import flows
import pytest
from blobhub_server.workflow.components.awaits import signal
from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.interpreter import (
    Completion,
    Continue,
    ExecutionState,
    Failed,
    Happening,
    Interrupted,
    RunStep,
    Started,
    StepOutput,
    Stopped,
    StopRequested,
    TimedOut,
    Turn,
    advance,
    apply,
)
from blobhub_server.workflow.rules.execution import DEFAULT_STEP_LIMIT
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreting import REGISTRY, TERMINAL, Run, compiled, replay
from port_values import expression, giving, shared, template, variable
from scale import scaled


@st.composite
def graphs(draw: st.DrawFn, *, acyclic: bool = False) -> str:
    """Random graphs: expressions, scripts, delays, switches and joins, with forks, and with cycles unless `acyclic`.

    Unless `acyclic` some ports have expressions, which read values and session objects that others write, and outputs of
    components that may have run or not.
    """
    count = draw(st.integers(1, 8))
    possible = ["expression", "bad", "code", "delay", "switch", "join", *([] if acyclic else ["reader", "writer"])]
    kinds = draw(st.lists(st.sampled_from(possible), min_size=count, max_size=count))
    made = {
        "expression": lambda name: flows.component(name, "logic.expression", expression="1 + 1"),
        "bad": lambda name: flows.component(name, "logic.expression", expression="1 // 0"),
        "code": lambda name: flows.component(name, "logic.code", code="pass"),
        "delay": lambda name: flows.component(name, "flow.delay", seconds=1),
        "switch": lambda name: flows.component(name, "flow.switch", cases=[{"route": "a", "when": "True"}]),
        "join": lambda name: flows.component(name, "flow.join", mode="all"),
        "reader": lambda name: giving(
            name,
            f"default(steps['{name}'].result, near) + values.n",
            near=expression(f"steps['{draw(st.sampled_from(names))}'].result * 1"),
        ),
        "writer": lambda name: flows.component(
            name,
            "logic.code",
            code="pass",
            given=expression("[session.object, values.n]"),
            name=template("no {{ input.n }}"),
        ),
    }

    routes = {"expression": ["success", "failure"], "bad": ["success", "failure"], "code": ["success", "failure"],
              "delay": ["next"], "switch": ["a", "default"], "join": ["next"], "reader": ["success", "failure"],
              "writer": ["success", "failure"]}  # fmt: skip
    names = [f"{kind}-{number}" for number, kind in enumerate(kinds)]
    components = [
        flows.component("start", "flow.start"),
        variable("n", 1),
        shared("object", 1 if draw(st.booleans()) else None),
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
    for name in names:
        if name.startswith(("reader", "writer")):
            connections.append(flows.data(name, "result", "the-n", "value"))
            connections.append(flows.data(name, "result", "shared-object", "value"))
    unique = {connection["id"]: connection for connection in connections}
    return flows.document(components, list(unique.values()))


def graph_of(document: str) -> Graph:
    return Graph.compile(parse(document.encode()), REGISTRY)


def random_outcome(seed: random.Random):
    def outcome(command: RunStep):
        outputs = {"result": seed.randint(0, 9)} if command.component_id.startswith("writer") else {}
        return ComponentError("unlucky") if seed.random() < 0.2 else Outcome(route="success", outputs=outputs)

    return outcome


@settings(max_examples=scaled(300, least=50), deadline=None)
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


@settings(max_examples=scaled(200, least=40), deadline=None)
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
            apply(graph, following, record)
        assert following == state


@settings(max_examples=scaled(200, least=40), deadline=None)
@given(graphs(acyclic=True), st.integers(0, 2**32), st.integers(0, 2**32))
def test_the_order_of_independent_completions_does_not_change_the_outcome(document: str, one: int, other: int) -> None:
    """Components succeed or fail by their names, and are finished in two orders.

    Graphs here have no cycles, no `first` joins and no two writers of one value: with those the order is the meaning.
    Executions that fail end at the first failure to come, so what had been done by then depends on the order; what they
    share is that they fail.
    """
    graph = graph_of(document)

    def outcome(command: RunStep):
        return ComponentError("by name") if command.component_id.endswith(("3", "5")) else Outcome(route="success")

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
    turn = advance(graph, ExecutionState(step_limit=DEFAULT_STEP_LIMIT), [Started({})], now=0.0, session={}, budget=budget)
    records = turn.records
    while turn.state.runnable:
        turn = advance(graph, turn.state, [Continue()], now=0.0, session={}, budget=budget)
        assert len(turn.records) <= 2 * budget + 1
        records += turn.records
    assert records == whole.records


@settings(max_examples=scaled(200, least=40), deadline=None)
@given(graphs(), st.integers(0, 2**32))
def test_a_turn_that_is_thrown_away_leaves_the_state_as_it_was(document: str, number: int) -> None:
    """Whatever happens next, and however much of it: it can be decided, thrown away, and decided again, to the same end."""
    seed = random.Random(number)
    run = Run(graph_of(document), step_limit=40, session={"object": [1]})

    def happenings() -> list[Happening]:
        possible: list[Happening] = [Started({}), Continue(), StopRequested(), Stopped(), TimedOut(), Failed("A", "b")]
        for step, open_ in run.state.open.items():
            results = (
                None,
                Outcome(route="success"),
                Outcome(route="success", terminal=True),
                ComponentError("no"),
                signal("a", "b"),
            )
            possible += [Completion(step=step, attempt=open_.attempt, result=result) for result in results]
            possible += [Interrupted(step), StepOutput(step=step, value=1)]
        return seed.sample(possible, min(len(possible), seed.randint(1, 5)))

    def turn(next_: list[Happening]) -> Turn:
        return advance(run.graph, run.state, next_, now=run.now, session=run.session)

    def pick(commands):
        before, next_ = copy.deepcopy((run.state, run.session)), happenings()
        thrown_away = turn(next_)
        assert repr((run.state, run.session)) == repr(before), "repr shows the order of dictionaries too"
        assert turn(next_) == thrown_away
        return seed.choice(commands)

    pick([None])
    run.start().finish(random_outcome(seed), pick=pick)
    pick([None])
