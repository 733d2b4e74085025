"""Values beyond the bounds are refused in words where they enter or are made, and what was stored can be read."""

from __future__ import annotations

import json
from typing import Any

import acme
import flows
import pytest
from acme import DRAFT
from blobhub.v1 import definition_pb2
from blobhub_client import get_value
from blobhub_server.blobtypes import json_text
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from blobhub_server.errors import InvalidValue
from calling import ask
from exact import INVALID, constant_of, flow, given_to, nested, opened, same, values
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st
from served import Api

pytestmark = pytest.mark.either_database

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
    json.dumps([0] * 10_001): "at most 10000 items in lists and objects, not 10001",
    json.dumps([{"": 0}] * 5_001): "at most 10000 items in lists and objects, not 10002",
    json.dumps(nested(25)): "at most 24",
    json.dumps(nested(25, objects=True)): "at most 24",
    "[" * 9_000: "at most 24",
    '{"":' * 4_000: "at most 24",
}


@pytest.mark.parametrize(("text", "words"), WRONG.items(), ids=[text[:20] or "nothing" for text in WRONG])
async def test_a_text_that_is_no_value_is_refused_in_words_on_every_way_in(api: Api, text: str, words: str) -> None:
    session_id = await opened(api)
    spec = {"definition": "workflow", "input_data": [{"alias": "given", "value_json": text}]}
    content = ParseDict(flow(None), definition_pb2.WorkflowDefinition())
    constant_of(content).value_json = text
    place = "components[3].ports[2].value_json"
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
    }
    for method, (fields, field) in ways.items():
        reason = "INVALID_DEFINITION" if "Definition" in method else "INVALID_VALUE"
        error = await expect_refusal(ask(api, method, **fields), INVALID, reason)
        bad = error_details_pb2.BadRequest()
        assert unpack(error, bad)
        assert [(item.field, words in item.description) for item in bad.field_violations] == [(field, True)], bad
    answer = await ask(api, "CheckDefinition", revision=DRAFT, content=content)
    assert [(problem.path, words in problem.message) for problem in answer.problems] == [(place, True)]


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
        ([0] * 10_000, False),
        ([2**63 - 1] * 4_000, True),
        ([*[2**63 - 1] * 4_000, "x" * 200_000], False),
        ({"kind": "text", "text": "é," * 300_000}, True),
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
    answer = await ask(api, "GetDefinition", definition=f"{DRAFT}/large")
    assert same(value, get_value(constant_of(answer.content)))


async def test_the_inputs_of_an_execution_share_the_items_of_values(api: Api) -> None:
    aliases = [f"v{number}" for number in range(20)]
    kept = [flows.value(alias, alias, persistence="execution") for alias in aliases]
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end"), *kept]
    session_id = await api.session(flows.document(parts, [flows.control("start", "end")]))
    given = [{"alias": alias, "value_json": json.dumps([0] * 500, separators=(",", ":"))} for alias in aliases]
    spec = {"definition": "workflow", "input_data": given}
    started = (await ask(api, "StartExecution", session=session_id, spec=spec)).execution
    found = (await ask(api, "GetExecution", execution=started.id)).execution
    assert all(same([0] * 500, get_value(item)) for item in found.input_data)
    assert sum(item.HasField("value") for item in found.input_data) == 8


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = 1\nfor i in range(25):\n    x = [x]\nset_data_output('result', x)", "at most 24"),
        ("x = 1\nfor i in range(25):\n    x = {'a': x}\nemit_output(x)", "at most 24"),
        ("set_data_output('result', 2 ** 64)", "integers from"),
        ("set_data_output('result', 'x' * (1 << 20))", "at most 1048576 bytes"),
        ("set_data_output('result', [0] * 10001)", "at most 10000 items in lists and objects"),
        ("for i in range(3):\n    set_data_output(i, [0] * 5000)", "all outputs must have at most 10000 items"),
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
async def test_an_expression_that_makes_a_value_beyond_its_bounds_fails_with_a_reason(
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
    assert ended.failure.reason == "EXPRESSION_SIZE"
    assert "the result" in ended.failure.message
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
