"""One reader, one verdict: what CheckDefinition says of a document is what PutDefinition does with it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import flows
import grpc
import pytest
from acme import DRAFT
from blobhub.v1 import definition_pb2
from blobhub_server.blobtypes.conformance import unpack
from calling import ask
from definition_mutants import mutants
from google.protobuf.struct_pb2 import Value
from google.rpc import error_details_pb2
from hypothesis import HealthCheck, given, settings
from runs import failing
from served import Api, connected, served

pytestmark = pytest.mark.either_database

UNREADABLE = {
    definition_pb2.DEFINITION_PROBLEM_TYPE_INVALID_DOCUMENT,
    definition_pb2.DEFINITION_PROBLEM_TYPE_INVALID_EXPRESSION,
}
ERROR = definition_pb2.DEFINITION_PROBLEM_SEVERITY_ERROR
CASES = {
    case["case"]: case["document"] for case in map(json.loads, failing("check-runnable-put-refused.jsonl").splitlines())
}
PLACES = {
    "duplicate key": "version",
    "byte order mark": "",
    "lone surrogate": "components[0].name",
    "position is a list": "components[0].position",
}


def words_of(problem: definition_pb2.DefinitionProblem) -> str:
    place = f"line {problem.line}, column {problem.column}: " if problem.line else ""
    return f"{place}{problem.message}"


async def refusal(api: Api, **body: Any) -> list[tuple[str, str]] | None:
    """What PutDefinition refuses a definition with; None when it takes it."""
    bad = error_details_pb2.BadRequest()
    try:
        await ask(api, "PutDefinition", revision=DRAFT, alias="tried", **body)
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.INVALID_ARGUMENT or not unpack(error, bad):
            raise
    else:
        return None
    return [(violation.field, violation.description) for violation in bad.field_violations]


async def verdict(api: Api, **body: Any) -> definition_pb2.CheckDefinitionResponse:
    """What CheckDefinition says, once it is held against what PutDefinition and a start do."""
    answer = await ask(api, "CheckDefinition", revision=DRAFT, **body)
    errors = [problem for problem in answer.problems if problem.severity == ERROR]
    assert answer.runnable == (not errors)
    told = [(problem.path or problem.component_id, words_of(problem)) for problem in errors]
    unreadable = any(problem.type in UNREADABLE for problem in errors)
    refused = await refusal(api, **body)
    assert (refused is not None) == unreadable, (refused, told)
    if refused is not None:
        assert refused[: len(told)] == told[: len(refused)] or refused[-1][1].startswith("and "), (refused, told)
        return answer
    stored = await ask(api, "CheckDefinition", revision=DRAFT, definition="tried")
    assert stored == answer
    found = await ask(api, "GetDefinition", definition=f"{DRAFT}/tried")
    assert body.get("document", found.document) == found.document
    assert [component.id for component in found.content.components] or "components[" not in found.document
    return answer


@pytest.mark.parametrize("case", CASES)
async def test_the_cases_of_check_runnable_put_refused_jsonl_are_told_at_their_place(api: Api, case: str) -> None:
    await api.session(flows.steps(1))
    answer = await verdict(api, document=CASES[case])
    assert [(problem.path, problem.severity) for problem in answer.problems] == [(PLACES[case], ERROR)]
    assert await refusal(api, document=CASES[case]) is not None


MINIMAL = '{"type":"workflow_definition","components":[{"id":"start","type":"flow.start"MORE}],"connections":[]}'
KINDS = {
    "not a number": (',"position":{"x":NaN}', "components[0].position.x"),
    "infinity": (',"policy":{"retry":{"maximum_attempts":Infinity}}', "components[0].policy.retry.maximum_attempts"),
    "not a number in an unknown key": (',"note":[1,{"a":-Infinity}]', "components[0].note[1].a"),
    "half an attempt": (',"policy":{"retry":{"maximum_attempts":2.5}}', "components[0].policy.retry.maximum_attempts"),
    "attempts as a text": (',"policy":{"retry":{"maximum_attempts":"2"}}', "components[0].policy.retry.maximum_attempts"),
    "a flag as a number": (',"policy":{"retry":{"maximum_attempts":true}}', "components[0].policy.retry.maximum_attempts"),
    "a number too large for a float": (',"position":{"y":1e400}', "components[0].position.y"),
    "a very long number": (f',"position":{{"y":1{"0" * 5000}}}', "components[0].position.y"),
    "a list as a name": (',"name":["start"]', "components[0].name"),
    "a long name": (f',"name":"{"x" * 257}"', "components[0].name"),
    "a name with a zero": (',"name":"a\\u0000"', "components[0].name"),
    "a name with a tab": (',"name":"a\\tb"', "components[0].name"),
    "an object as ports": (',"ports":{}', "components[0].ports"),
    "a port that is a text": (',"ports":["in"]', "components[0].ports[0]"),
    "a category that is none": (',"ports":[{"category":"banana","route":"x"}]', "components[0].ports[0].category"),
    "both spellings": (
        ',"policy":{"retry":{"maximumAttempts":1,"maximum_attempts":1}}',
        "components[0].policy.retry.maximum_attempts",
    ),
    "a value with half a character": (
        ',"ports":[{"category":"data_input","route":"x","value":"\\udc00"}]',
        "components[0].ports[0].value",
    ),
    "a value too deep": (
        f',"ports":[{{"category":"data_input","route":"x","value":{"[" * 30}{"]" * 30}}}]',
        "components[0].ports[0].value",
    ),
    "a key twice in a value": (
        ',"ports":[{"category":"data_input","route":"x","value":{"a":[{"b":1,"b":2}]}}]',
        "components[0].ports[0].value.a[0].b",
    ),
    "an unknown key too deep": (f',"note":{"[" * 100}{"]" * 100}', ""),
    "an unknown key much too deep": (f',"note":{"[" * 100_000}{"]" * 100_000}', ""),
    "a duration in words": (',"policy":{"timeout":"soon"}', "components[0].policy.timeout"),
    "a duration before now": (',"policy":{"timeout":"-1s"}', "components[0].policy.timeout"),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_no_definition_is_told_at_its_place_and_refused(api: Api, kind: str) -> None:
    more, path = KINDS[kind]
    await api.session(flows.steps(1))
    answer = await verdict(api, document=MINIMAL.replace("MORE", more))
    told = [problem for problem in answer.problems if problem.severity == ERROR]
    assert [(problem.path, problem.type) for problem in told] == [(path, 1)]


GOOD = {
    "whole numbers as floats": ',"policy":{"retry":{"maximum_attempts":2.0}},"position":{"x":1,"y":1.0}',
    "nothing": ',"name":null,"position":null,"ports":null,"policy":null,"category":null',
    "nothing inside": ',"policy":{"timeout":null,"retry":null},"position":{"x":null}',
    "camel case": ',"policy":{"retry":{"maximumAttempts":2,"nonRetryableReasons":["A"]}}',
    "an unknown key that holds anything": ',"note":{"\\ud800":[1e400,1' + "0" * 5000 + "]}",
}


@pytest.mark.parametrize("kind", GOOD)
async def test_what_is_a_definition_is_put_and_told_as_a_message(api: Api, kind: str) -> None:
    await api.session(flows.steps(1))
    document = MINIMAL.replace("MORE", GOOD[kind])
    answer = await verdict(api, document=document)
    assert answer.runnable
    content = (await ask(api, "GetDefinition", definition=f"{DRAFT}/tried")).content
    assert [component.id for component in content.components] == ["start"]
    assert (await verdict(api, content=content)).runnable


def typed(change: Callable[[definition_pb2.WorkflowComponent], None]) -> definition_pb2.WorkflowDefinition:
    made = definition_pb2.WorkflowDefinition(type="workflow_definition")
    change(made.components.add(id="start", type="flow.start"))
    return made


def _position(component: definition_pb2.WorkflowComponent) -> None:
    component.position.x = math.nan


def _timeout(component: definition_pb2.WorkflowComponent) -> None:
    component.policy.timeout.seconds = -(10**15)


def _value(component: definition_pb2.WorkflowComponent) -> None:
    component.ports.add(category="data_input", route="x", value=Value(number_value=math.inf))


def _many(component: definition_pb2.WorkflowComponent) -> None:
    for _ in range(300):
        component.ports.add(category="data_input", route="x")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (_position, "components[0].position.x"),
        (_timeout, "components[0].policy.timeout"),
        (_value, "components[0].ports[0].value"),
        (_many, "components[0].ports"),
    ],
)
async def test_a_message_that_is_no_definition_is_told_at_the_same_places(
    api: Api, change: Callable[[definition_pb2.WorkflowComponent], None], path: str
) -> None:
    await api.session(flows.steps(1))
    answer = await verdict(api, content=typed(change))
    assert [(problem.path, problem.type) for problem in answer.problems] == [(path, 1)]


@pytest.mark.parametrize(("parts", "path"), [("components", "components"), ("connections", "connections")])
async def test_a_message_of_very_many_empty_parts_is_told_of_and_refused(api: Api, parts: str, path: str) -> None:
    await api.session(flows.steps(1))
    content = definition_pb2.WorkflowDefinition(type="workflow_definition")
    made = getattr(content, parts)
    for _ in range(50_000):
        made.add()
    answer = await verdict(api, content=content)
    assert [problem.path for problem in answer.problems] == [path]


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> Api:
    """A client of one server for all examples."""
    async with (
        served(tmp_path_factory.mktemp("data"), None) as server,
        connected(server.address, server.admin_key) as api,
    ):
        await api.session(flows.steps(1))
        yield api


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=mutants())
async def test_check_and_put_agree_on_every_document_and_on_the_message_of_it(shared: Api, document: str) -> None:
    answer = await verdict(shared, document=document)
    if any(problem.type in UNREADABLE for problem in answer.problems):
        return
    content = (await ask(shared, "GetDefinition", definition=f"{DRAFT}/tried")).content
    again = await verdict(shared, content=content)
    said = [problem for problem in answer.problems if problem.type != definition_pb2.DEFINITION_PROBLEM_TYPE_UNKNOWN_KEY]
    assert list(again.problems) == said


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=mutants())
async def test_what_is_checked_without_error_is_put_committed_and_started(shared: Api, document: str) -> None:
    answer = await ask(shared, "CheckDefinition", revision=DRAFT, document=document)
    if not answer.runnable:
        return
    await ask(shared, "PutDefinition", revision=DRAFT, alias="tried", document=document)
    session = await ask(shared, "CreateSession", revision=DRAFT)
    spec = {"definition": "tried", "timeout": {"seconds": 60}, "step_limit": 20}
    await ask(shared, "StartExecution", session=session.session.id, spec=spec)
    commit = await ask(shared, "CommitRevision", revision=DRAFT)
    await ask(shared, "CreateRevision", blob="acme/pipeline", base_revision=commit.revision.id)
