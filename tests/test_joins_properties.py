"""Joins over random graphs with cycles, held against a slow model of the rules that shares no code with the interpreter."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.definitions.check import check
from blobhub_server.workflow.definitions.document import ProblemType, Severity
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.interpreter import (
    Completion,
    Continue,
    ExecutionState,
    Happening,
    Started,
    advance,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreting import REGISTRY, replay
from scale import scaled
from token_model import ERROR, OUTCOMES, Model, Plan, plans

STEP_LIMIT = 60


class Interpreted:
    """Runs a plan in the interpreter. Every turn is thrown away once, and `budget` components are evaluated in each."""

    def __init__(self, plan: Plan, choose: Callable[[int], int], budget: int) -> None:
        self.graph = Graph.compile(parse(plan.document.encode()), REGISTRY)
        self.state = ExecutionState(step_limit=STEP_LIMIT)
        self.records = []
        self._budget = budget
        self._tell(Started({}))
        while self.state.open:
            steps = list(self.state.open)
            step = steps[choose(len(steps))]
            outcome = OUTCOMES[choose(len(OUTCOMES))]
            result = ComponentError("unlucky", reason="UNLUCKY") if outcome is ERROR else Outcome(route=outcome)
            self._tell(Completion(step=step, attempt=1, result=result))

    def _tell(self, happening: Happening) -> None:
        self._turn(happening)
        while self.state.runnable:
            self._turn(Continue())

    def _turn(self, happening: Happening) -> None:
        before = copy.deepcopy(self.state)
        thrown_away, turn = (
            advance(self.graph, self.state, [happening], now=0.0, session={}, budget=self._budget) for _ in range(2)
        )
        assert self.state == before
        assert turn == thrown_away
        self.state = turn.state
        self.records += turn.records
        assert replay(self.graph, self.records, step_limit=STEP_LIMIT) == self.state

    @property
    def entered(self) -> list[str]:
        return [record.component_id for record in self.records if record.type == "processor.entered"]


@settings(max_examples=scaled(5_000, least=300), deadline=None)
@given(plans(), st.integers(0, 2**32), st.integers(1, 5))
def test_every_graph_runs_as_the_model_says(plan: Plan, number: int, budget: int) -> None:
    model = Model(plan=plan, choose=random.Random(number).randrange, step_limit=STEP_LIMIT).run()
    run = Interpreted(plan, random.Random(number).randrange, budget)
    assert run.entered == model.entered
    ended = run.state.error["reason"] if run.state.error else run.state.phase
    assert ended == ("completed" if model.ended == "stop" else model.ended)


def unsound(plan: Plan, severity: Severity) -> set[str]:
    """The joins that check finds something about."""
    problems = check(parse(plan.document.encode()), REGISTRY)
    return {p.component_id for p in problems if p.type is ProblemType.UNSOUND_JOIN and p.severity is severity}


@settings(max_examples=scaled(3_000, least=300), deadline=None)
@given(plans(), st.integers(0, 2**32))
def test_a_join_that_is_an_error_never_fires_and_whoever_comes_to_it_does_not_complete(plan: Plan, number: int) -> None:
    wrong = unsound(plan, Severity.ERROR)
    chance = random.Random(number)
    for _ in range(10 if wrong else 0):
        model = Model(plan=plan, choose=chance.randrange, step_limit=STEP_LIMIT).run()
        assert not wrong & set(model.entered)
        assert model.ended != "completed" or not wrong & model.arrived
