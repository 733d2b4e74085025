"""What an execution is started with: one message for all who start one, and readable afterwards."""

from __future__ import annotations

from typing import Any

import acme
import flows
import grpc
import pytest
from blobhub.v1 import execution_pb2
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from calling import ask
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from google.rpc import error_details_pb2
from served import Api

pytestmark = pytest.mark.either_database

CODE = "set_data_output('result', inputs.given)"
GIVEN = {"text": "hi", "numbers": [1, 2.5, None, True], "": {}}


def given(value: Any = GIVEN) -> dict[str, Any]:
    item = execution_pb2.ExecutionInput(alias="given", value=ParseDict(value, Value()))
    return {"definition": "workflow", "input_data": [item]}


@pytest.mark.parametrize("method", ["StartExecution", "RunExecution"])
async def test_what_an_execution_was_given_is_read_from_the_execution_alone(api: Api, method: str) -> None:
    session_id = await api.session(flows.code(CODE))
    started = (await ask(api, method, session=session_id, spec=given())).execution
    assert not started.input_data
    found = (await ask(api, "GetExecution", execution=started.id)).execution
    assert list(found.input_data) == given()["input_data"]
    (listed,) = (await ask(api, "ListExecutions", blob="acme/pipeline", session=session_id)).executions
    assert (listed.id, len(listed.input_data)) == (started.id, 0)


@pytest.mark.parametrize("method", ["StartExecution", "RunExecution"])
async def test_an_input_that_is_given_twice_is_refused(api: Api, method: str) -> None:
    session_id = await api.session(flows.code(CODE))
    twice = {"definition": "workflow", "input_data": [{"alias": "given", "value_json": text} for text in ("1", "2")]}
    error = await expect_refusal(
        ask(api, method, session=session_id, spec=twice), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE"
    )
    assert error.details() == "spec.input_data[1].alias: each input has one value; 'given' is there twice"


async def test_an_execution_that_was_given_nothing_shows_nothing(api: Api) -> None:
    session_id = await api.session(flows.steps(1))
    started = (await ask(api, "StartExecution", session=session_id, spec={"definition": "workflow"})).execution
    assert not (await ask(api, "GetExecution", execution=started.id)).execution.input_data


@pytest.mark.parametrize("method", ["StartExecution", "RunExecution"])
async def test_a_definition_of_another_revision_is_refused_in_words(api: Api, method: str) -> None:
    session_id = await api.session(flows.steps(1))
    await api.publish()
    await acme.branch(api)
    call = ask(api, method, session=session_id, spec={"definition": "acme/pipeline@draft/workflow"})
    error = await expect_refusal(call, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE")
    bad = error_details_pb2.BadRequest()
    assert unpack(error, bad)
    (violation,) = bad.field_violations
    assert violation.field == "spec.definition"
    assert "another revision or blob" in violation.description
    assert not (await ask(api, "ListExecutions", blob="acme/pipeline", session=session_id)).executions


@pytest.mark.parametrize("method", ["StartExecution", "RunExecution"])
async def test_a_definition_of_the_sessions_revision_is_named_in_every_way(api: Api, method: str) -> None:
    session_id = await api.session(flows.steps(1))
    session = (await ask(api, "GetSession", session=session_id)).session
    stored = (await ask(api, "GetDefinition", definition="acme/pipeline@draft/workflow")).definition
    within = [f"acme/pipeline@{version}/workflow" for version in ("draft", "default", session.revision_id)]
    for reference in ("workflow", stored.id, stored.id.upper(), f"{session.revision_id}/workflow", *within):
        started = (await ask(api, method, session=session_id, spec={"definition": reference})).execution
        assert started.definition_id == stored.id
    for malformed in ("no reference!", "a/b", "acme/pipeline/workflow", "x" * 64):
        call = ask(api, method, session=session_id, spec={"definition": malformed})
        await expect_refusal(call, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_a_start_without_a_spec_is_refused(api: Api) -> None:
    session_id = await api.session(flows.steps(1))
    call = ask(api, "StartExecution", session=session_id)
    await expect_refusal(call, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_the_audit_log_names_the_definition_that_was_started(api: Api) -> None:
    session_id = await api.session(flows.code(CODE))
    await ask(api, "StartExecution", session=session_id, spec=given("swordfish"))
    entry = (await acme.entries(api))[-1]
    assert entry.detail.startswith("definition=workflow id=")
    assert "swordfish" not in entry.detail
