"""Scopes over random graphs: they end, they replay, nothing is lost or left over, and what is last runs once."""

from __future__ import annotations

import random
from collections import Counter

import flows
from blobhub_server.workflow.components.contract import ComponentError, ComponentKind, Outcome
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.interpreter import (
    TERMINAL,
    Completion,
    Continue,
    ExecutionState,
    Halt,
    Started,
    Stopped,
    StopRequested,
    TimedOut,
    Wait,
    advance,
    todo,
)
from blobhub_server.workflow.log.tally import Tally
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreting import REGISTRY, replay
from scale import scaled
from scoping import controls, inside
from tallying import require_agreement, take

STEP_LIMIT = 40
ROUTES = {"script": ("success", "failure"), "bad": ("success", "failure"), "all": ("next",), "first": ("next",), "end": ()}
ROUTES |= {
    "stop": (),
    "fail": (),
    "try": ("success", "failure"),
    "loop": ("success", "failure"),
    "each": ("success", "failure"),
}
SCOPES = ("try", "loop", "each")
KINDS = (*["script"] * 4, "bad", "all", "first", "end", "stop", "fail", *["try"] * 3, *["loop"] * 2, *["each"] * 2)
RETRY = {"retry": {"maximum_attempts": 2, "initial_interval": "1s"}}
MADE = {
    "script": lambda id_: flows.component(id_, "logic.code", code="pass"),
    "bad": lambda id_: flows.component(id_, "logic.expression", expression="1 // 0"),
    "all": lambda id_: flows.component(id_, "flow.join"),
    "first": lambda id_: flows.component(id_, "flow.join", mode="first"),
    "end": lambda id_: flows.component(id_, "flow.end", value=1),
    "stop": lambda id_: flows.component(id_, "flow.end", terminal=True),
    "fail": lambda id_: flows.component(id_, "flow.fail", reason="MEANT"),
    "try": lambda id_: flows.component(id_, "flow.try"),
    "loop": lambda id_: flows.component(id_, "flow.loop", **{"while": "index < 3 and state != 1"}, state=0),
    "each": lambda id_: flows.component(id_, "flow.each", items=[1, 2, 3], concurrency=2, failures=len(id_) % 3),
}


def graph(chance: random.Random) -> Graph:
    """A random definition with scopes within scopes, in each of which control goes forwards and sometimes back."""
    parts, ways = [flows.component("start", "flow.start")], list[str]()

    def fill(scope: str, begins: list[str], depth: int) -> None:
        names = list[str]()
        for _ in range(chance.randint(1, 4)):
            kind = chance.choice([kind for kind in KINDS if kind not in SCOPES or depth < 3])
            id_ = f"{kind}{len(parts)}"
            made = MADE[kind](id_) | ({"policy": RETRY} if kind in SCOPES and chance.random() < 0.5 else {})
            parts.extend(inside(scope, made) if scope else [made])
            if kind in SCOPES:
                last = [f"{id_}.finally"] if kind == "try" and chance.random() < 0.6 else []
                fill(id_, [f"{id_}.body", *last], depth + 1)
            names.append(id_)
            sources = [*begins, *(f"{name}.{route}" for name in names[:-1] for route in ROUTES[name.rstrip("0123456789")])]
            ways.append(f"{chance.choice(sources)} {id_}")
        ways.extend(f"{begin} {chance.choice(names)}" for begin in begins)
        for name in names:
            ways.extend(
                f"{name}.{r} {chance.choice(names)}" for r in ROUTES[name.rstrip("0123456789")] if chance.random() < 0.3
            )

    fill("", ["start.next"], 0)
    return Graph.compile(parse(flows.document(parts, controls(*dict.fromkeys(ways))).encode()), REGISTRY)


def require_sound(graph: Graph, state: ExecutionState) -> None:
    """What the state counts is what is in it."""
    ready, opened = Counter(token[3] for token in state.ready), Counter(step.activation for step in state.open.values())
    for number, activation in state.activations.items():
        waiting = sum(map(len, activation.joins.waiting.values()))
        assert activation.active == ready[number] + opened[number]
        assert activation.tokens == activation.active + waiting
    assert state.tokens == sum(activation.tokens for activation in state.activations.values())
    assert ready.keys() | opened.keys() <= state.activations.keys()
    live = [number for scope in state.scopes.values() for number in scope.live]
    assert sorted([0, *live]) == sorted(state.activations) or state.phase in TERMINAL
    scopes = {n for n, s in state.open.items() if graph.components[s.component_id].kind is ComponentKind.SCOPE}
    assert state.scopes.keys() == scopes
    assert state.busy == sum(step.awaits is None for step in state.open.values())


@settings(max_examples=scaled(5_000, least=200), deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_every_graph_with_scopes_ends_replays_and_leaves_nothing(number: int, budget: int) -> None:
    chance = random.Random(number)
    made = graph(chance)
    state, records, now = ExecutionState(step_limit=STEP_LIMIT), [], 0.0
    happening, tally = Started({}), Tally()
    for _ in range(3_000):
        before = state
        turn = advance(made, state, [happening], now=now, session={}, budget=budget)
        assert turn == advance(made, before, [happening], now=now, session={}, budget=budget)
        state = turn.state
        records += turn.records
        take(tally, made, turn.records)
        require_agreement(tally, made, state)
        require_sound(made, state)
        assert replay(made, records, step_limit=STEP_LIMIT) == state
        if state.ended:
            break
        commands = todo(made, state, now)
        runs = [command for command in commands if not isinstance(command, Wait) or command.until is not None]
        command = chance.choice(runs)
        match command:
            case Wait():
                now = max(now, command.until)
                happening = Completion(step=command.step, attempt=command.attempt)
            case Halt():
                happening = Stopped()
            case _ if state.runnable:
                happening = Continue()
            case _:
                results = [Outcome(route="success")] * 6 + [ComponentError("no", reason="UNLUCKY")] * 3
                result = chance.choice([*results, Outcome(route="success", terminal=True)])
                happening = Completion(step=command.step, attempt=command.attempt, result=result)
        if chance.random() < 0.02:
            happening = chance.choice([StopRequested(), TimedOut()])
    assert state.ended
    require_last_once(made, state, records)


def require_last_once(graph: Graph, state: ExecutionState, records: list) -> None:
    """Each scope that was entered has run what is last once; where the whole execution was cut off, at most."""
    began = Counter(r.step for r in records if r.type == "scope.entered" and r.public["part"] == "finally")
    entered = [r for r in records if r.type == "processor.entered" and "finally" in graph.components[r.component_id].control]
    cut = state.error is not None and state.error["reason"] == "STEP_LIMIT"
    for record in entered:
        assert began[record.step] == 1 or (cut and began[record.step] == 0)
