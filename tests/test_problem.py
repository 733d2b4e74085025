"""Problems that CheckDefinition tells: how bad, and where."""

from __future__ import annotations

import flows
import pytest
from blobhub.v1 import definition_pb2
from served import Api

pytestmark = pytest.mark.either_database

ERROR = definition_pb2.DEFINITION_PROBLEM_SEVERITY_ERROR


WARNING = definition_pb2.DEFINITION_PROBLEM_SEVERITY_WARNING


async def problems_of(api: Api, expression: str) -> list[definition_pb2.DefinitionProblem]:
    document = flows.document(
        [flows.component("start", "flow.start"), flows.component("sum", "logic.expression", n=1, expression=expression)],
        [flows.control("start", "sum")],
    )
    request = definition_pb2.CheckDefinitionRequest(revision="acme/pipeline@draft", document=document)
    answer = await api.definitions.CheckDefinition(request)
    assert answer.runnable == (not answer.problems)
    return list(answer.problems)


@pytest.mark.parametrize(
    ("expression", "line", "column"),
    [("1 +", 1, 4), ("\n\n 1 + )", 3, 6), ("'é' + )", 1, 7), ("n.size()", 1, 1), ("[n,\n  lambda: 1]", 2, 3)],
)
async def test_a_broken_expression_is_an_error_at_its_line_and_column(
    api: Api, expression: str, line: int, column: int
) -> None:
    await api.session(flows.steps(1))
    (problem,) = await problems_of(api, expression)
    assert problem.type == definition_pb2.DEFINITION_PROBLEM_TYPE_INVALID_EXPRESSION
    assert (problem.severity, problem.component_id, problem.path) == (ERROR, "sum", "components[1].ports[1].value")
    assert (problem.line, problem.column) == (line, column)
    assert await problems_of(api, "n + 2") == []


async def test_every_name_that_nobody_provides_is_an_error_at_its_place_with_the_names_there_are(api: Api) -> None:
    await api.session(flows.steps(1))
    problems = await problems_of(api, "([x * m for x in n if has(o)] +\n default(p, q))")
    assert {problem.type for problem in problems} == {definition_pb2.DEFINITION_PROBLEM_TYPE_UNKNOWN_NAME}
    assert [(problem.line, problem.column, problem.message) for problem in problems] == [
        (1, 7, "there is no name `m`; there are error, input, inputs, n, session, steps, values"),
        (2, 13, "there is no name `q`; there are error, input, inputs, n, session, steps, values"),
    ]


async def test_a_case_that_can_be_neither_true_nor_false_is_a_warning(api: Api) -> None:
    await api.session(flows.steps(1))
    cases = {"type": "json", "json": [{"route": "a", "when": "n"}, {"route": "a", "when": "n + 1"}]}
    document = flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("which", "flow.switch", cases=cases, n=1),
            flows.component("end", "flow.end"),
        ],
        [flows.control("start", "which"), *(flows.control("which", "end", route) for route in ("a", "default"))],
    )
    request = definition_pb2.CheckDefinitionRequest(revision="acme/pipeline@draft", document=document)
    answer = await api.definitions.CheckDefinition(request)
    (problem,) = answer.problems
    assert answer.runnable
    assert (problem.severity, problem.path) == (WARNING, "components[1].ports[0].value.json[1].when")
    assert "never True or False" in problem.message


async def test_a_problem_of_no_script_or_expression_has_no_line(api: Api) -> None:
    await api.session(flows.steps(1))
    request = definition_pb2.CheckDefinitionRequest(revision="acme/pipeline@draft", document=flows.document([], []))
    (problem,) = (await api.definitions.CheckDefinition(request)).problems
    assert (problem.severity, problem.path, problem.line, problem.column) == (ERROR, "components", 0, 0)
