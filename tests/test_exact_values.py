"""Any JSON value comes back equal through every way out that carries it, and what is beyond the bounds is refused in words.

Equal is what execution.proto says at ExecutionInput: the same JSON types, texts and keys, and the same numbers.
"""

from __future__ import annotations

import json
import math
from typing import Any

import acme
import flows
import grpc
import pytest
from blobhub.v1 import definition_pb2, execution_pb2, metadata_pb2, session_object_pb2, session_pb2
from blobhub_client import get_value, set_value
from blobhub_server.blobtypes import json_text
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from blobhub_server.errors import InvalidValue
from calling import ask
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from google.rpc import error_details_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scale import SHARED_FIXTURES, scaled
from served import Api

DRAFT = "acme/pipeline@draft"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
LARGEST = 2**53 - 1
"""The largest integer that a 64-bit float tells from all others."""

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)

EDGES = [
    *(2**63 - 1, -(2**63), 2**64 - 1, 2**53, 2**53 + 1, -(2**53) - 1, LARGEST, -LARGEST, 0),
    *(-0.0, 1e308, -1e308, 5e-324, 0.1, 1e16, 1e22, 123456789012345680.0),
    *(None, True, False, [], {}, "", [[]], [{}], {"": {"": ""}}),
    *("\0", '"\\', "[[[{{{", "12345678901234567890", "\u2028\U0001d11e", {"a b": 1, "value_json": "2"}),
]


def nested(depth: int, inner: Any = 2**63 - 1, *, objects: bool = False) -> Any:
    for _ in range(depth):
        inner = {"": inner} if objects else [inner]
    return inner


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, as the contract says."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if one is None or isinstance(one, bool | str):
        return type(one) is type(other) and one == other
    if isinstance(other, bool) or not isinstance(other, int | float):
        return False
    if isinstance(one, int) and abs(one) > LARGEST:
        return type(other) is int and one == other
    return one == other and math.copysign(1, one) == math.copysign(1, other)


def flow(constant: Any) -> dict[str, Any]:
    """The result is a list of all there is: what was given, a session object, a constant; a script emits and stores it."""
    kept = [
        flows.value("given", "given", persistence="execution"),
        flows.value("read", "read", persistence="session"),
        flows.value("written", "written", persistence="session"),
        flows.value("constant", "constant"),
    ]
    kept[-1]["ports"][-1]["value"] = constant
    code = "emit_output(data_inputs['given'])\nset_data_output('given', data_inputs['given'])"
    script = flows.component("script", "logic.code", code=code)
    gather = "set_data_output('all', [data_inputs['a'], data_inputs['b'], data_inputs['c']])"
    parts = [
        flows.component("start", "flow.start"),
        script,
        flows.component("gather", "logic.code", code=gather),
        flows.component("end", "flow.end"),
    ]
    joined = [
        flows.control("start", "script"),
        flows.control("script", "gather", "success"),
        flows.control("gather", "end", "success"),
        flows.data("given", "value", "script", "given"),
        flows.data("script", "given", "written", "value"),
        flows.data("given", "value", "gather", "a"),
        flows.data("read", "value", "gather", "b"),
        flows.data("constant", "value", "gather", "c"),
        flows.data("gather", "all", "end", "value"),
    ]
    return json.loads(flows.document([*kept, *parts], joined))


def passing() -> str:
    """The result is what was given, untouched on its way."""
    return flows.document(
        [
            flows.component("start", "flow.start"),
            flows.value("given", "given", persistence="execution"),
            flows.component("end", "flow.end"),
        ],
        [flows.control("start", "end"), flows.data("given", "value", "end", "value")],
    )


async def opened(api: Api) -> str:
    """A session, for tests whose examples share a server: the only one there is."""
    found = (await ask(api, "ListOrganizations")).organizations
    if not found:
        return await api.session(passing())
    (session,) = (await ask(api, "ListSessions", blob="acme/pipeline")).sessions
    return session.id


def filled(message: Any, value: Any, *, text: bool) -> Any:
    """A message with a value: as text, or in the form that the client chooses."""
    if text:
        message.value_json = json.dumps(value)
    else:
        set_value(message, value)
    return message


ONE = pytest.mark.parametrize("text", [True, False], ids=["as-text", "as-the-client-does"])


def every_edge(test: Any) -> Any:
    for value in (EDGES, nested(24), nested(24, objects=True), nested(24, inner="x", objects=True), 2**63 - 1, -0.0):
        test = example(value=value)(test)
    return settings(max_examples=scaled(60, least=6), deadline=None, suppress_health_check=SHARED_FIXTURES)(test)


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


def given_to(value: Any, *, text: bool) -> execution_pb2.ExecutionInput:
    return filled(execution_pb2.ExecutionInput(alias="given"), value, text=text)


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
        for item in (await ask(api, "ListExecutions", session=session_id, page_size=1000)).executions
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


def constant_of(content: definition_pb2.WorkflowDefinition) -> definition_pb2.WorkflowPort:
    (port,) = [port for part in content.components if part.id == "constant" for port in part.ports if port.route == "value"]
    return port


@ONE
@every_edge
@given(value=values)
async def test_a_port_has_the_same_value_as_a_message_and_in_the_document(api: Api, text: bool, value: Any) -> None:
    await opened(api)
    content = ParseDict(flow(None), definition_pb2.WorkflowDefinition())
    filled(constant_of(content), value, text=text)
    await ask(api, "PutDefinition", revision=DRAFT, alias="typed", content=content)
    typed = await ask(api, "GetDefinition", revision=DRAFT, definition="typed")
    assert same(value, get_value(constant_of(typed.content)))
    document = json.loads(typed.document)
    (port,) = [port for part in document["components"] if part["id"] == "constant" for port in part["ports"][-1:]]
    assert same(value, port["value"])
    assert "value_json" not in port
    await ask(api, "PutDefinition", revision=DRAFT, alias="again", document=typed.document)
    assert (await ask(api, "GetDefinition", revision=DRAFT, definition="again")).content == typed.content
    await ask(api, "PutDefinition", revision=DRAFT, alias="once-more", content=typed.content)
    once_more = await ask(api, "GetDefinition", revision=DRAFT, definition="once-more")
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


WRONG = {
    '{"a": 1, "b": {"c": 1, "c": 1}}': '"c" is there twice',
    '"\\ud800"': "surrogate",
    "18446744073709551616": "integers from -9223372036854775808 to 18446744073709551615 only, not 18446744073709551616",
    "-9223372036854775809": "not -9223372036854775809",
    "1" * 5000: "not 1111",
    "1e400": "finite",
    "NaN": "NaN",
    "-Infinity": "-Infinity",
    "": "must be one JSON value",
    "1 2": "must be one JSON value: extra data at character 2",
    "[1,]": "must be one JSON value",
    "'a'": "must be one JSON value",
    json.dumps(nested(25)): "at most 24",
    json.dumps(nested(25, objects=True)): "at most 24",
    "[" * 60_000: "at most 24",
    '{"":' * 15_000: "at most 24",
}


@pytest.mark.parametrize(("text", "words"), WRONG.items(), ids=[text[:20] or "nothing" for text in WRONG])
async def test_a_text_that_is_no_value_is_refused_in_words_on_every_way_in(api: Api, text: str, words: str) -> None:
    session_id = await opened(api)
    spec = {"definition": "workflow", "input_data": [{"alias": "given", "value_json": text}]}
    content = ParseDict(flow(None), definition_pb2.WorkflowDefinition())
    constant_of(content).value_json = text
    place = "content.components[3].ports[2].value_json"
    if not text:
        constant_of(content).value_json = "["
        words = "must be one JSON value"
    await ask(api, "CreateMetadata", parent=DRAFT, key="there", value=Value(bool_value=True))
    ways = {
        "PutSessionObject": ({"session": session_id, "alias": "a", "value_json": text}, "value_json"),
        "CreateMetadata": ({"parent": DRAFT, "key": "k", "value_json": text}, "value_json"),
        "UpdateMetadata": ({"parent": DRAFT, "key": "there", "value_json": text}, "value_json"),
        "StartExecution": ({"session": session_id, "spec": spec}, "spec.input_data[0].value_json"),
        "RunExecution": ({"session": session_id, "spec": spec}, "spec.input_data[0].value_json"),
        "PutDefinition": ({"revision": DRAFT, "alias": "d", "content": content}, place),
        "CheckDefinition": ({"revision": DRAFT, "content": content}, place),
    }
    for method, (fields, field) in ways.items():
        reason = "INVALID_DEFINITION" if "Definition" in method else "INVALID_VALUE"
        error = await expect_refusal(ask(api, method, **fields), INVALID, reason)
        bad = error_details_pb2.BadRequest()
        assert unpack(error, bad)
        assert [(item.field, words in item.description) for item in bad.field_violations] == [(field, True)], bad


async def test_a_value_that_nests_deeper_is_refused_in_either_form_and_in_a_document(api: Api) -> None:
    session_id = await opened(api)
    for deep in (nested(25, inner=1), nested(25, inner=1, objects=True)):
        value = ParseDict(deep, Value())
        put = ask(api, "PutSessionObject", session=session_id, alias="a", value=value)
        await expect_refusal(put, INVALID, "INVALID_VALUE")
        error = await expect_refusal(api.put(json.dumps(flow(deep))), INVALID, "INVALID_DEFINITION")
        bad = error_details_pb2.BadRequest()
        assert unpack(error, bad)
        (violation,) = bad.field_violations
        assert violation.field.endswith("components[3].ports[2].value")
        assert "at most 24" in violation.description


async def test_a_value_and_all_inputs_together_have_at_most_a_mebibyte(api: Api) -> None:
    session_id = await opened(api)
    full = "x" * ((1 << 20) - 2)
    await ask(api, "PutSessionObject", session=session_id, alias="a", value=Value(string_value=full))
    for form in ({"value": Value(string_value=full + "x")}, {"value_json": json.dumps(full + "x")}):
        put = ask(api, "PutSessionObject", session=session_id, alias="a", **form)
        error = await expect_refusal(put, INVALID, "INVALID_VALUE" if "value" in form else "INVALID_REQUEST")
        assert "1048576" in error.details()
        assert "1048577" in error.details()
    both = [{"alias": alias, "value": Value(string_value="x" * (1 << 19))} for alias in ("given", "other")]
    start = ask(api, "StartExecution", session=session_id, spec={"definition": "workflow", "input_data": both})
    error = await expect_refusal(start, INVALID, "INVALID_VALUE")
    assert "1048580" in error.details()


@pytest.mark.parametrize(
    ("value", "whole"),
    [
        ([0] * 500_000, False),
        ([2**63 - 1] * 10_000, True),
        ([2**63 - 1] * 20_000, False),
        ({"type": "text", "text": "é," * 300_000}, True),
    ],
    ids=["many", "inexact", "large-and-inexact", "long"],
)
async def test_what_was_stored_is_never_too_large_to_read(api: Api, value: Any, whole: bool) -> None:
    """A message has at most 4 MiB; many small numbers take five times as much as a Value as they do in JSON."""
    session_id = await opened(api)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    await ask(api, "PutSessionObject", session=session_id, alias="a", value_json=text)
    found = (await ask(api, "GetSessionObject", session=session_id, alias="a")).session_object
    assert same(value, get_value(found))
    assert found.HasField("value") == whole
    spec = {"definition": "workflow", "input_data": [{"alias": "given", "value_json": text}]}
    last = await ask(api, "RunExecution", session=session_id, spec=spec)
    assert same(value, get_value(last.execution, "result"))
    assert last.execution.HasField("result") == whole
    read = (await ask(api, "GetExecution", execution=last.execution.id)).execution
    assert same(value, get_value(read.input_data[0]))
    document = flow(value)
    await api.put(json.dumps(document, ensure_ascii=False, separators=(",", ":")), alias="large")
    answer = await ask(api, "GetDefinition", revision=DRAFT, definition="large")
    assert same(value, get_value(constant_of(answer.content)))


async def test_the_inputs_of_an_execution_share_the_items_of_values(api: Api) -> None:
    aliases = [f"v{number}" for number in range(20)]
    kept = [flows.value(alias, alias, persistence="execution") for alias in aliases]
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end"), *kept]
    session_id = await api.session(flows.document(parts, [flows.control("start", "end")]))
    given = [{"alias": alias, "value_json": json.dumps([0] * 25_000, separators=(",", ":"))} for alias in aliases]
    spec = {"definition": "workflow", "input_data": given}
    started = (await ask(api, "StartExecution", session=session_id, spec=spec)).execution
    found = (await ask(api, "GetExecution", execution=started.id)).execution
    assert all(same([0] * 25_000, get_value(item)) for item in found.input_data)
    assert sum(item.HasField("value") for item in found.input_data) == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = 1\nfor i in range(25):\n    x = [x]\nset_data_output('result', x)", "at most 24"),
        ("x = 1\nfor i in range(25):\n    x = {'a': x}\nemit_output(x)", "at most 24"),
        ("set_data_output('result', 2 ** 64)", "integers from"),
        ("set_data_output('result', 'x' * (1 << 20))", "at most 1048576 bytes"),
        ("set_data_output('a', 'x' * 600000)\nset_data_output('b', 'x' * 600000)", "all outputs must be at most 1048576"),
        ("set_data_output('result', float('inf'))", "finite"),
        ("set_data_output('result', {1, 2})", "nothing but what JSON has"),
    ],
)
async def test_a_script_that_makes_a_value_beyond_its_bounds_fails_with_a_reason(api: Api, code: str, words: str) -> None:
    session_id = await api.session(flows.code(code))
    ended = (await ask(api, "RunExecution", session=session_id, spec={"definition": "workflow"})).execution
    assert ended.failure.reason == "SCRIPT_OUTPUT"
    assert words in ended.failure.message


@pytest.mark.parametrize(
    ("value", "words"),
    [(nested(24, inner=1), "at most 24"), ("x" * ((1 << 20) - 2), "at most 1048576 bytes")],
    ids=["deep", "long"],
)
async def test_a_component_that_makes_a_value_beyond_its_bounds_fails_with_a_reason(
    api: Api, value: Any, words: str
) -> None:
    parts = [
        flows.component("start", "flow.start"),
        flows.value("given", "given", persistence="execution"),
        flows.value("kept", "kept", persistence="session"),
        flows.component("wrap", "logic.expression", expression="[n]"),
        flows.component("end", "flow.end"),
    ]
    joined = [
        flows.control("start", "wrap"),
        flows.control("wrap", "end", "success"),
        flows.data("given", "value", "wrap", "n"),
        flows.data("wrap", "result", "kept", "value"),
    ]
    session_id = await api.session(flows.document(parts, joined))
    spec = {"definition": "workflow", "input_data": [given_to(value, text=False)]}
    ended = (await ask(api, "RunExecution", session=session_id, spec=spec)).execution
    assert ended.failure.reason == "INVALID_OUTPUT"
    assert "the output 'result'" in ended.failure.message
    assert words in ended.failure.message
    fine = {"definition": "workflow", "input_data": [given_to(1, text=False)]}
    assert get_value((await ask(api, "RunExecution", session=session_id, spec=fine)).execution, "result") is None
    assert get_value((await ask(api, "GetSessionObject", session=session_id, alias="kept")).session_object) == [1]


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(value=values, around=st.integers(0, 30), filler=st.text('[]{}"\\', max_size=60))
def test_the_depth_of_a_text_is_that_of_its_value(value: Any, around: int, filler: str) -> None:
    value = nested(around, inner={"filler": [filler] * 30, filler: value})
    text = json.dumps(value)
    if depth(value) > json_text.MAX_DEPTH:
        with pytest.raises(InvalidValue, match="at most 24"):
            json_text.require_bounds("value", text)
    else:
        json_text.require_bounds("value", text)


@given(text=st.text('[]{}"\\,:1-e0. ', max_size=200))
def test_any_text_is_refused_or_a_value(text: str) -> None:
    try:
        value, _ = json_text.parse("value", text)
    except InvalidValue:
        return
    assert same(json.loads(text.replace("-0", "-0.0") if text.strip() == "-0" else text), value) or "-0" in text


async def test_the_audit_log_shows_no_values(api: Api) -> None:
    session_id = await opened(api)
    await ask(api, "PutSessionObject", session=session_id, alias="a", value_json='"swordfish"')
    assert "swordfish" not in str([entry.detail for entry in await acme.entries(api)])
