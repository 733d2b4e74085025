"""Definitions that once went wrong without a word, in `failing/`: what check says of them now, and what a run does."""

from __future__ import annotations

import flows
import pytest
from acme import DRAFT
from blobhub.v1 import definition_pb2
from calling import ask
from runs import failing
from served import Api

pytestmark = pytest.mark.either_database

CASES = "components[1].ports[0].value[0]"


@pytest.mark.parametrize(
    ("name", "severity", "type_", "path"),
    [
        ("switch-route-that-leads-nowhere.json", "WARNING", "ROUTE_LEADS_NOWHERE", f"{CASES}.route"),
        ("set-result-on-a-route-that-leads-nowhere.json", "WARNING", "ROUTE_LEADS_NOWHERE", "components[1].ports[0].value"),
        ("switch-when-is-not-a-boolean.json", "WARNING", "TYPE_MISMATCH", f"{CASES}.when"),
        ("delay-10-to-the-400.json", "ERROR", "INVALID_DOCUMENT", "components[1].ports[0].value"),
    ],
)
async def test_check_tells_of_a_definition_that_went_wrong_without_a_word(
    api: Api, name: str, severity: str, type_: str, path: str
) -> None:
    await api.session(flows.steps(1))
    answer = await ask(api, "CheckDefinition", revision=DRAFT, document=failing(name))
    found = {
        (
            definition_pb2.DefinitionProblemSeverity.Name(problem.severity).rpartition("_")[2],
            definition_pb2.DefinitionProblemType.Name(problem.type).removeprefix("DEFINITION_PROBLEM_TYPE_"),
            problem.path,
        )
        for problem in answer.problems
    }
    assert (severity, type_, path) in found
    assert answer.runnable == (severity == "WARNING")


async def test_switch_route_from_input_is_a_number_json_can_be_run_for_its_input_may_be_another(api: Api) -> None:
    await api.session(flows.steps(1))
    document = failing("switch-route-from-input-is-a-number.json")
    assert (await ask(api, "CheckDefinition", revision=DRAFT, document=document)).runnable


@pytest.mark.parametrize(
    ("source", "route"),
    [
        ("set_result('sucess')", "sucess"),
        ('set_result(\n  "it",  # a comment\n)', None),
        ("set_result('it')", "it"),
        ("set_result(5)", "5"),
        ("set_result(None)", "None"),
        ("set_result(r'a\\b')", "a\\b"),
        ("set_result('done', True)", None),
        ("set_result('done', terminal=True)", None),
        ("set_result('success')", None),
        ("set_result('failure')", None),
        ("name = 'it'\nset_result(name)", None),
        ("set_result('a' 'b')", None),
        ("# set_result('it')", None),
        ("x = \"set_result('it')\"", None),
        ("set_result('connected')", None),
    ],
)
async def test_a_route_that_a_script_names_and_goes_on_with_is_warned_of_unless_it_is_connected(
    api: Api, source: str, route: str | None
) -> None:
    await api.session(flows.steps(1))
    script = flows.component("script", "logic.code", code=source)
    onward = [flows.control("script", "end", "success"), flows.control("script", "end", "connected")]
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end"), script]
    document = flows.document(parts, [flows.control("start", "script"), *onward])
    answer = await ask(api, "CheckDefinition", revision=DRAFT, document=document)
    assert [repr(route) in problem.message for problem in answer.problems] == ([True] if route else [])


@pytest.mark.parametrize(
    ("source", "warned"),
    [
        ("x = 1", True),
        ("set_data_output('other', 1)", True),
        ("set_data_output('result', 1)", False),
        ("set_data_output('other', 1)\nset_data_output('result', 1)", False),
        ("name = 'result'\nset_data_output(name, 1)", False),
        ("give = set_data_output\ngive('result', 1)", False),
        ("set_data_output(route='result', value=1)", False),
        ("for name in ['result']:\n    set_data_output(name, 1)\nset_data_output('other', 1)", False),
    ],
)
async def test_an_output_that_a_script_never_sets_is_warned_of_where_that_is_certain(
    api: Api, source: str, warned: bool
) -> None:
    await api.session(flows.steps(1))
    answer = await ask(api, "CheckDefinition", revision=DRAFT, document=flows.code(source))
    unset = definition_pb2.DEFINITION_PROBLEM_TYPE_UNSET_OUTPUT
    assert [problem.type for problem in answer.problems] == ([unset] if warned else [])
