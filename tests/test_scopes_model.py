"""Scopes over random graphs, held against a slow model of the rules that shares no code with the interpreter."""

from __future__ import annotations

import random
from collections.abc import Callable

from blobhub_server.workflow.components.awaits import NEXT_ATTEMPT
from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.interpreter import Completion
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreting import REGISTRY, Run
from scale import scaled
from scope_model import SCOPES, ScopeModel, ScopePlan, scope_plans
from token_model import ERROR, OUTCOMES

STEP_LIMIT = 30


def interpreted(plan: ScopePlan, choose: Callable[[int], int]) -> Run:
    """Run a plan in the interpreter; whatever ends next, and how, is chosen as in the model."""
    run = Run(Graph.compile(parse(plan.document.encode()), REGISTRY), step_limit=STEP_LIMIT).start()
    while not run.state.ended:
        open_ = run.state.open.items()
        possible = [n for n, s in open_ if plan.kinds[s.component_id] not in SCOPES or s.awaits == NEXT_ATTEMPT]
        step = possible[choose(len(possible))]
        about, result = run.state.open[step], None
        if about.awaits == NEXT_ATTEMPT:
            run.now = max(run.now, about.until or 0.0)
        else:
            outcome = OUTCOMES[choose(len(OUTCOMES))]
            result = ComponentError("unlucky", reason="UNLUCKY") if outcome is ERROR else Outcome(route=outcome)
        run.tell(Completion(step=step, attempt=about.attempt, result=result))
    return run


@settings(max_examples=scaled(scaled(20_000, least=2_000), least=300), deadline=None)
@given(scope_plans(), st.integers(0, 2**32))
def test_every_graph_with_scopes_runs_as_the_model_says(plan: ScopePlan, number: int) -> None:
    model = ScopeModel(plan=plan, choose=random.Random(number).randrange, step_limit=STEP_LIMIT).run()
    run = interpreted(plan, random.Random(number).randrange)
    assert [record.component_id for record in run.records if record.type == "processor.entered"] == model.entered
    assert model.ended is not None
    reason = run.state.error["reason"] if run.state.error else ""
    assert reason == model.ended.reason
    assert (run.state.phase == "failed") == (model.ended.kind == "error")
