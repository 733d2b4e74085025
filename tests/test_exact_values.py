"""Any JSON value comes back equal through every way out that carries it, and what is beyond the bounds is refused in words.

Equal is what execution.proto says at ExecutionInput: the same JSON types, texts and keys, and the same numbers.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from acme import DRAFT
from blobhub.v1 import definition_pb2, execution_pb2, metadata_pb2, session_object_pb2, session_pb2
from blobhub_client import get_value
from calling import ask
from exact import ONE, constant_of, every_edge, filled, flow, given_to, nested, opened, same, values
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from hypothesis import given
from served import Api

pytestmark = pytest.mark.either_database


@ONE
@every_edge
@given(value=values)
async def test_a_session_object_comes_back_equal(api: Api, text: bool, value: Any) -> None:
    session_id = await opened(api)
    request = filled(session_object_pb2.PutSessionObjectRequest(session=session_id, alias="a"), value, text=text)
    await api.session_objects.PutSessionObject(request)
    found = (await ask(api, "GetSessionObject", session=session_id, alias="a")).session_object
    assert same(value, get_value(found))
    assert found.HasField("value"), "the convenient form is beside the exact one"
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
    assert found.size == size if text else found.size <= size


@ONE
@every_edge
@given(value=values)
async def test_metadata_come_back_equal(api: Api, text: bool, value: Any) -> None:
    await opened(api)
    targets = ("acme/pipeline", DRAFT)
    for target in targets:
        for record in (await ask(api, "ListMetadata", parent=target)).records:
            await ask(api, "DeleteMetadata", parent=target, key=record.key)
    for target in targets:
        made = filled(metadata_pb2.CreateMetadataRequest(parent=target, key="created"), value, text=text)
        answers = [(await api.metadata.CreateMetadata(made)).record]
        await ask(api, "CreateMetadata", parent=target, key="updated", value=Value(bool_value=True))
        changed = filled(metadata_pb2.UpdateMetadataRequest(parent=target, key="updated"), value, text=text)
        answers.append((await api.metadata.UpdateMetadata(changed)).record)
        answers += [(await ask(api, "GetMetadata", parent=target, key=key)).record for key in ("created", "updated")]
        answers += (await ask(api, "ListMetadata", parent=target)).records
        answers += [item.record for item in (await ask(api, "ResolveMetadata", revision=DRAFT)).resolved]
        assert len(answers) == 8
        assert all(same(value, get_value(record)) and record.HasField("value") for record in answers)


@ONE
@every_edge
@given(value=values)
async def test_what_an_execution_is_given_is_its_result_wherever_it_is_read(api: Api, text: bool, value: Any) -> None:
    session_id = await opened(api)
    spec = {"definition": "workflow", "input_data": [given_to(value, text=text)]}
    last = await ask(api, "RunExecution", session=session_id, spec=spec)
    found = (await ask(api, "GetExecution", execution=last.execution.id)).execution
    listed = [
        item
        for item in (await ask(api, "ListExecutions", blob="acme/pipeline", session=session_id, page_size=1000)).executions
        if item.id == found.id
    ]
    assert all(
        same(value, get_value(item, "result")) and item.HasField("result") for item in (last.execution, found, *listed)
    )
    assert same(value, get_value(found.input_data[0]))
    request = execution_pb2.WatchExecutionRequest(execution=found.id, replay_only=True)
    events = [event async for message in api.executions.WatchExecution(request) for event in message.events]
    assert same(value, get_value(events[-1].flow_exited, "result"))
    after = events[-1].session_sequence - 1
    watch = session_pb2.WatchSessionRequest(session=session_id, after_session_sequence=after, replay_only=True)
    (again,) = [event async for message in api.sessions.WatchSession(watch) for event in message.events]
    assert again == events[-1]
    listing = {"session": session_id, "after_session_sequence": after}
    for narrowed in ({}, {"execution": found.id}, {"types": ["flow.exited"]}, {"order_by": "session_sequence desc"}):
        assert list((await ask(api, "ListEvents", **listing, **narrowed)).events) == [again]


@ONE
@every_edge
@given(value=values)
async def test_values_pass_through_scripts_session_objects_and_constants_unchanged(api: Api, text: bool, value: Any) -> None:
    value = value[0] if value == nested(24) else value[""] if isinstance(value, dict) and "" in value else value
    session_id = await opened(api)
    put = filled(session_object_pb2.PutSessionObjectRequest(session=session_id, alias="read"), value, text=text)
    await api.session_objects.PutSessionObject(put)
    await api.put(json.dumps(flow(value)), alias="all")
    spec = {"definition": "all", "input_data": [given_to(value, text=text)]}
    ended = (await ask(api, "RunExecution", session=session_id, spec=spec)).execution
    assert same([value] * 3, get_value(ended, "result")), ended.failure
    written = (await ask(api, "GetSessionObject", session=session_id, alias="written")).session_object
    assert same(value, get_value(written))
    request = execution_pb2.WatchExecutionRequest(execution=ended.id, replay_only=True)
    events = [event async for message in api.executions.WatchExecution(request) for event in message.events]
    (emitted,) = [event.processor_output for event in events if event.WhichOneof("payload") == "processor_output"]
    assert same(value, get_value(emitted))
    after = events[0].session_sequence - 1
    listed = await ask(
        api, "ListEvents", session=session_id, execution=ended.id, after_session_sequence=after, page_size=1000
    )
    assert list(listed.events) == events


@ONE
@every_edge
@given(value=values)
async def test_a_port_has_the_same_value_as_a_message_and_in_the_document(api: Api, text: bool, value: Any) -> None:
    await opened(api)
    content = ParseDict(flow(None), definition_pb2.WorkflowDefinition())
    filled(constant_of(content), value, text=text)
    await ask(api, "PutDefinition", revision=DRAFT, alias="typed", content=content)
    typed = await ask(api, "GetDefinition", definition=f"{DRAFT}/typed")
    assert same(value, get_value(constant_of(typed.content)))
    document = json.loads(typed.document)
    (port,) = [port for part in document["components"] if part["id"] == "constant" for port in part["ports"][-1:]]
    assert same(value, port["value"])
    assert "value_json" not in port
    await ask(api, "PutDefinition", revision=DRAFT, alias="again", document=typed.document)
    assert (await ask(api, "GetDefinition", definition=f"{DRAFT}/again")).content == typed.content
    await ask(api, "PutDefinition", revision=DRAFT, alias="once-more", content=typed.content)
    once_more = await ask(api, "GetDefinition", definition=f"{DRAFT}/once-more")
    assert same(document, json.loads(once_more.document))


async def test_the_nearest_value_is_beside_the_text_where_a_value_is_not_exact(api: Api) -> None:
    session_id = await opened(api)
    await ask(api, "PutSessionObject", session=session_id, alias="a", value_json=" [ 9007199254740993, 1.0, -0 ] ")
    found = (await ask(api, "GetSessionObject", session=session_id, alias="a")).session_object
    assert found.value_json == "[9007199254740993,1.0,-0.0]"
    assert [item.number_value for item in found.value.list_value.values] == [9007199254740992.0, 1.0, -0.0]
    await ask(api, "PutSessionObject", session=session_id, alias="a", value_json="9007199254740991")
    found = (await ask(api, "GetSessionObject", session=session_id, alias="a")).session_object
    assert (found.value_json, found.value.number_value) == ("", 9007199254740991.0)


@pytest.mark.parametrize("mask", [[], ["value"], ["value_json"]])
async def test_an_update_of_the_text_form_changes_the_value(api: Api, mask: list[str]) -> None:
    await opened(api)
    await ask(api, "CreateMetadata", parent=DRAFT, key="k", value=Value(bool_value=True))
    update = {"update_mask": {"paths": mask}, "value_json": str(2**63)}
    record = (await ask(api, "UpdateMetadata", parent=DRAFT, key="k", **update)).record
    assert (record.value_json, record.value.number_value) == (str(2**63), 2.0**63)
