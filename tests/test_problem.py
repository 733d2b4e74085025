"""Problems that CheckDefinition tells: how bad, and where."""

from __future__ import annotations

import flows
import pytest
from blobhub.v1 import definition_pb2
from served import Api

ERROR = definition_pb2.DEFINITION_PROBLEM_SEVERITY_ERROR


async def problems_of(api: Api, expression: str) -> list[definition_pb2.DefinitionProblem]:
    document = flows.document(
        [flows.component("start", "flow.start"), flows.component("sum", "logic.expression", expression=expression)],
        [flows.control("start", "sum")],
    )
    request = definition_pb2.CheckDefinitionRequest(revision="acme/pipeline@draft", document=document)
    answer = await api.definitions.CheckDefinition(request)
    assert answer.runnable == (not answer.problems)
    return list(answer.problems)


@pytest.mark.parametrize(
    ("expression", "line", "column"), [("1 +", 1, 4), ("\n\n 1 + + 2", 3, 6), ("'<input>:7:7: ' + )", 1, 19)]
)
async def test_a_broken_expression_is_an_error_at_its_line_and_column(
    api: Api, expression: str, line: int, column: int
) -> None:
    await api.session(flows.steps(1))
    (problem,) = await problems_of(api, expression)
    assert (problem.severity, problem.component_id, problem.path) == (ERROR, "sum", "components[1].ports")
    assert (problem.line, problem.column) == (line, column)
    assert await problems_of(api, "1 + 2") == []


async def test_a_problem_of_no_script_or_expression_has_no_line(api: Api) -> None:
    await api.session(flows.steps(1))
    request = definition_pb2.CheckDefinitionRequest(revision="acme/pipeline@draft", document=flows.document([], []))
    (problem,) = (await api.definitions.CheckDefinition(request)).problems
    assert (problem.severity, problem.path, problem.line, problem.column) == (ERROR, "components", 0, 0)
