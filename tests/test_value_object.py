"""Value objects, such as `{"type": "text", "text": "hi"}`: whoever reads one gets what is inside, once."""

from __future__ import annotations

from typing import Any

import counters
import flows
import pytest
from blobhub.v1 import execution_pb2 as pb
from blobhub_client import get_value
from calling import ask
from runs import run
from served import Api

pytestmark = pytest.mark.either_database

INSIDE: dict[str, tuple[Any, Any]] = {
    "text": ({"type": "text", "text": "hi"}, "hi"),
    "integer": ({"type": "integer", "integer": (1 << 63) - 1}, (1 << 63) - 1),
    "float": ({"type": "float", "float": 0.5}, 0.5),
    "boolean": ({"type": "boolean", "flag": False}, False),
    "choice": ({"type": "choice", "id": "a"}, "a"),
    "json": ({"type": "json", "json": {"type": "text", "text": "hi"}}, {"type": "text", "text": "hi"}),
    "message": (
        {"type": "message", "message": {"content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}},
        "hi",
    ),
    "messages": ({"type": "messages", "messages": []}, {"type": "messages", "messages": []}),
}
"""A value object of each type, and what is read of it."""

PLAIN: list[Any] = [
    *({"type": []}, {"type": {}}, {"type": None}, {"type": 1}, {"type": "text"}, {"type": "boolean", "boolean": True}),
    *({"type": "message"}, {"type": "message", "text": "hi"}, {"type": "message", "message": "hi"}),
    *({"type": "message", "message": {}}, {"type": "message", "message": {"content": "hi"}}),
    *({"type": "message", "message": {"content": [part]}} for part in ("hi", None, {}, {"type": "text", "text": 1})),
    *({"type": "text", "TEXT": "hi"}, {"type": "TEXT", "text": "hi"}, {"type": "banana", "banana": 1}),
    *({"type": "file", "path": "/a"}, {"type": "thread", "thread": []}, {"type": "graph"}),
]
"""What looks like a value object, and is none."""

EACH = [*INSIDE.values(), *((value, value) for value in PLAIN)]


async def result_of(api: Api, session_id: str, definition: str = "workflow", **inputs: Any) -> Any:
    """The result of an execution."""
    ended = await run(api, session_id, definition, **inputs)
    assert ended.state == pb.EXECUTION_STATE_COMPLETED, ended.failure
    return get_value(ended, "result")


def passed_on(persistence: str = "execution") -> str:
    """Start, and an end that gets the value `given`."""
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    given = flows.value("given", "given", persistence=persistence)
    return flows.document([*parts, given], [flows.control("start", "end"), flows.data("given", "value", "end", "value")])


def expression(text: str) -> str:
    """Start, an expression over the input `given`, and an end that gets its value."""
    step = flows.component("step", "logic.expression", expression=text)
    parts = [flows.component("start", "flow.start"), step, flows.component("end", "flow.end")]
    given = flows.value("given", "given", persistence="execution")
    connections = [flows.control("start", "step"), flows.control("step", "end", "success")]
    connections += [flows.data("given", "value", "step", "given"), flows.data("step", "result", "end", "value")]
    return flows.document([*parts, given], connections)


async def test_a_result_is_what_is_inside_a_value_object(api: Api) -> None:
    session_id = await api.session(passed_on())
    for value, inside in EACH:
        assert await result_of(api, session_id, given=value) == inside


async def test_an_expression_reads_what_is_inside_a_value_object(api: Api) -> None:
    session_id = await api.session(expression("[given, inputs['given']]"))
    for value, inside in EACH:
        assert await result_of(api, session_id, given=value) == [inside, inside]


async def test_a_session_object_is_read_as_what_is_inside_it_and_stays_as_it_was_put(api: Api) -> None:
    session_id = await api.session(passed_on("session"))
    for value, inside in EACH:
        await counters.put(api, session_id, value, alias="given")
        assert await result_of(api, session_id) == inside
        assert (await counters.value_of(api, session_id, alias="given"))[0] == value


async def test_a_definition_may_hold_what_looks_like_a_value_object_and_is_none(api: Api) -> None:
    session_id = await api.session(passed_on())
    for number, value in enumerate(PLAIN):
        end = flows.component("end", "flow.end", value=value)
        document = flows.document([flows.component("start", "flow.start"), end], [flows.control("start", "end")])
        assert (await ask(api, "CheckDefinition", revision="acme/pipeline@draft", document=document)).runnable
        await api.put(document, alias=f"plain-{number}")
        assert await result_of(api, session_id, f"plain-{number}") == value
