"""A script's inputs: `inputs` has what is inside of value objects, `data_inputs` has value objects, whatever was sent."""

from __future__ import annotations

import json
from typing import Any

import flows
import pytest
from blobhub.v1 import execution_pb2
from blobhub_client import get_value
from blobhub_server.workflow.values import unwrap, wrap
from exact import same, values
from hypothesis import given
from runs import run
from served import Api

pytestmark = pytest.mark.either_database

BOTH = """
absent = [get_data_input('no'), inputs.get('no'), inputs.get('no', 1)]
set_data_output('result', [inputs.given, inputs['given'], data_inputs['given'], get_data_input('given'), absent])
"""
CONTENT = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
MESSAGE = {"type": "message", "message": {"role": "user", "content": CONTENT}}
EVENT = {"type": "message", "text": "hi", "channel": "C1"}
WORDS = {"type": "message", "message": {"role": "user", "content": "hi"}}
FILE = {"type": "file", "path": "/a"}
INPUTS: dict[str, tuple[Any, Any, Any]] = {
    "a text": ("hi", "hi", {"type": "text", "text": "hi"}),
    "an integer": (2**53, 2**53, {"type": "integer", "integer": 2**53}),
    "a float": (-0.0, -0.0, {"type": "float", "float": -0.0}),
    "a boolean": (True, True, {"type": "boolean", "flag": True}),
    "null": (None, None, {"type": "json", "json": None}),
    "a list": ([1], [1], {"type": "json", "json": [1]}),
    "an object": ({"type": 1}, {"type": 1}, {"type": "json", "json": {"type": 1}}),
    "a text in an object": ({"type": "text", "text": "hi"}, "hi", {"type": "text", "text": "hi"}),
    "a choice": ({"type": "choice", "id": "a"}, "a", {"type": "choice", "id": "a"}),
    "an object in an object": (wrap(wrap("hi")), "hi", {"type": "text", "text": "hi"}),
    "a message": (MESSAGE, "hi", MESSAGE),
    "an event of another system": (EVENT, EVENT, {"type": "json", "json": EVENT}),
    "a message in words": (WORDS, WORDS, {"type": "json", "json": WORDS}),
    "a file of another system": (FILE, FILE, {"type": "json", "json": FILE}),
    "a thread": ({"type": "thread", "thread": {}}, {"type": "thread", "thread": {}}, {"type": "thread", "thread": {}}),
}


async def result_of(api: Api, session_id: str, value: Any) -> Any:
    ended = await run(api, session_id, given=value)
    assert ended.state == execution_pb2.EXECUTION_STATE_COMPLETED, ended.failure
    return get_value(ended, "result")


@pytest.mark.parametrize(("sent", "plain", "wrapped"), INPUTS.values(), ids=INPUTS)
async def test_inputs_are_plain_and_data_inputs_are_value_objects_whatever_was_sent(
    api: Api, sent: Any, plain: Any, wrapped: Any
) -> None:
    session_id = await api.session(flows.code(BOTH))
    assert same([plain, plain, wrapped, wrapped, [None, None, 1]], await result_of(api, session_id, sent))


@given(value=values)
def test_a_value_is_what_was_wrapped(value: Any) -> None:
    assert same(unwrap(value), unwrap(wrap(value)))
    assert wrap(wrap(value)) == wrap(value)


async def test_an_input_of_any_name_is_read_by_a_subscript(api: Api) -> None:
    names = ["unit-price", "class", "a b", "é", "__getitem__", "get_data_input"]
    parts = [
        flows.component("start", "flow.start"),
        flows.component(
            "script",
            "logic.code",
            code=f"set_data_output('result', [inputs[n] for n in {names}])",
            **dict.fromkeys(names, "x"),
        ),
        flows.component("end", "flow.end"),
    ]
    joined = [flows.control("start", "script"), flows.control("script", "end", "success")]
    joined.append(flows.data("script", "result", "end", "value"))
    session_id = await api.session(flows.document(parts, joined))
    ended = await run(api, session_id)
    assert json.dumps(get_value(ended, "result")) == json.dumps(["x"] * len(names)), ended.failure


@pytest.mark.parametrize(("code", "words"), [("inputs.no", "no attribute 'no'"), ("inputs['no']", "KeyError: no")])
async def test_an_input_that_is_not_there_is_an_error_that_names_it(api: Api, code: str, words: str) -> None:
    session_id = await api.session(flows.code(code))
    ended = await run(api, session_id)
    assert (ended.failure.reason, ended.failure.line, words in ended.failure.message) == ("SCRIPT_ERROR", 1, True), (
        ended.failure
    )
