"""Routes that lead nowhere: which end their branch, and which fail their component."""

from __future__ import annotations

import flows
import pytest
from blobhub_server.workflow.components.contract import Outcome
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.interpreter import Completion
from calling import ask
from interpreting import REGISTRY, Run, WaitsForSignal, compiled, replay
from runs import failing
from served import Api

pytestmark = pytest.mark.either_database


def script(*handled: str, **values: object) -> str:
    """Start, one script, an end that `success` leads to, and one for each further route."""
    routes = ("success", *handled)
    return flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("it", "logic.code", **{"code": "pass"} | values),
            *(flows.component(f"end-{route}", "flow.end", value=route) for route in routes),
        ],
        [flows.control("start", "it"), *(flows.control("it", f"end-{route}", route) for route in routes)],
    )


def ended(document: str, outcome: Outcome) -> Run:
    return Run(compiled(document)).start().finish(lambda _: outcome)


def test_a_route_that_no_connection_carries_fails_its_component_and_names_the_routes_there_are() -> None:
    run = ended(script("other"), Outcome(route="sucess", outputs={"result": 1}))
    assert run.types[-2:] == ["processor.error", "flow.error"]
    assert run.state.error == {
        "reason": "ROUTE_LEADS_NOWHERE",
        "message": "component 'it' failed: it took the route 'sucess', which no connection carries; its connected routes: "
        "'success', 'other'",
        "component_id": "it",
        "line": 0,
        "attempt": 1,
        "details": None,
    }
    assert replay(run.graph, run.records) == run.state


def test_a_failure_route_catches_a_route_that_leads_nowhere() -> None:
    run = ended(script("failure"), Outcome(route="sucess"))
    assert (run.state.phase, run.state.result) == ("completed", "failure")


def test_a_route_that_leads_nowhere_is_not_tried_again() -> None:
    policy = {"retry": {"maximum_attempts": 4}}
    run = Run(compiled(flows.code("pass", policy=policy))).start().finish(lambda _: Outcome(route="sucess"))
    assert "processor.retrying" not in run.types
    assert run.state.error["reason"] == "ROUTE_LEADS_NOWHERE"


def test_success_and_next_may_lead_nowhere_and_end_their_branch() -> None:
    alone = flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("it", "logic.code", code="pass"),
            flows.component("wait", "flow.delay", seconds=1),
        ],
        [flows.control("start", "it"), flows.control("start", "wait")],
    )
    run = Run(compiled(alone)).start().finish()
    assert run.state.phase == "completed"
    assert (run.exits()["it", "success"], run.exits()["wait", "next"]) == (1, 1)


def test_an_end_ends_its_branch_and_a_script_that_calls_its_route_so_does_not() -> None:
    assert ended(script(), Outcome(route="success")).state.phase == "completed"
    assert ended(script(), Outcome(route="end")).state.error["reason"] == "ROUTE_LEADS_NOWHERE"


def test_an_outcome_that_ends_the_whole_execution_needs_no_connection() -> None:
    assert ended(script(), Outcome(route="done", terminal=True)).state.phase == "completed"


def test_a_time_that_comes_by_a_route_without_connection_fails_its_component() -> None:
    document = flows.document(
        [flows.component("start", "flow.start"), flows.component("wait", "test.signalled", key="mine")],
        [flows.control("start", "wait")],
    )
    run = Run(compiled(document, ComponentRegistry([*REGISTRY, WaitsForSignal()]))).start()
    run.tell(Completion(step=2, attempt=1))
    assert run.state.error["reason"] == "ROUTE_LEADS_NOWHERE"
    assert "'timeout'" in run.state.error["message"]
    assert run.state.error["message"].endswith("its connected routes: none")


@pytest.mark.parametrize(
    ("name", "component", "route", "known"),
    [
        ("switch-route-that-leads-nowhere.json", "sw", "typo", "default"),
        ("set-result-on-a-route-that-leads-nowhere.json", "s", "5", "success"),
    ],
)
async def test_an_input_that_took_a_route_to_nowhere_fails(
    api: Api, name: str, component: str, route: str, known: str
) -> None:
    session = await api.session(failing(name))
    failure = (await ask(api, "RunExecution", session=session, spec={"definition": "workflow"})).execution.failure
    assert failure.reason == "ROUTE_LEADS_NOWHERE"
    assert failure.message == (
        f"component '{component}' failed: it took the route '{route}', which no connection carries; "
        f"its connected routes: '{known}'"
    )
