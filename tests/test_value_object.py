"""Value objects, such as `{"type": "text", "text": "hi"}`: whoever reads one gets what is inside, once."""

from __future__ import annotations

import json
from typing import Any

import counters
import flows
import pytest
from blobhub.v1 import execution_pb2 as pb
from blobhub_client import get_value
from calling import ask
from served import Api

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

PLAIN = [{"type": []}, {"type": {}}, {"type": None}, {"type": 1}, {"type": "text"}, {"type": "boolean", "boolean": True}]
"""What looks like a value object, and is none."""

EACH = [*INSIDE.values(), *((value, value) for value in PLAIN)]
WHOLE = pytest.mark.parametrize(("value", "inside"), EACH, ids=lambda given: json.dumps(given)[:40])


async def result_of(api: Api, document: str, **inputs: Any) -> Any:
    """The result of an execution in a session of its own."""
    session_id = await api.session(document)
    data = [{"alias": alias, "value_json": json.dumps(value)} for alias, value in inputs.items()]
    last = await ask(api, "RunExecution", session=session_id, spec={"definition": "workflow", "input_data": data})
    assert last.execution.state == pb.EXECUTION_STATE_COMPLETED, last.execution.failure
    return get_value(last.execution, "result")


def passed_to(*step: dict[str, Any], persistence: str = "execution") -> str:
    """Start, perhaps a step whose input `given` is a value, and an end that gets the value or what the step makes of it."""
    parts = [flows.component("start", "flow.start"), flows.value("given", "given", persistence=persistence)]
    connections = [
        flows.data(step[0]["id"], "result", "end", "value") if step else flows.data("given", "value", "end", "value")
    ]
    if step:
        connections += [flows.control("start", step[0]["id"]), flows.control(step[0]["id"], "end", "success")]
        connections.append(flows.data("given", "value", step[0]["id"], "given"))
    else:
        connections.append(flows.control("start", "end"))
    return flows.document([*parts, *step, flows.component("end", "flow.end")], connections)


@WHOLE
async def test_a_result_is_what_is_inside_a_value_object(api: Api, value: Any, inside: Any) -> None:
    assert await result_of(api, passed_to(), given=value) == inside


@WHOLE
async def test_an_expression_reads_what_is_inside_a_value_object(api: Api, value: Any, inside: Any) -> None:
    step = flows.component("wrap", "logic.expression", expression="[given, inputs['given']]")
    assert await result_of(api, passed_to(step), given=value) == [inside, inside]


@WHOLE
async def test_a_session_object_is_read_as_what_is_inside_it_and_stays_as_it_was_put(
    api: Api, value: Any, inside: Any
) -> None:
    session_id = await api.session(passed_to(persistence="session"))
    await counters.put(api, session_id, value, alias="given")
    assert get_value(await counters.run(api, session_id), "result") == inside
    assert (await counters.value_of(api, session_id, alias="given"))[0] == value


@pytest.mark.parametrize("value", PLAIN, ids=json.dumps)
async def test_a_definition_may_hold_what_looks_like_a_value_object_and_is_none(api: Api, value: Any) -> None:
    document = flows.document(
        [flows.component("start", "flow.start"), flows.component("end", "flow.end", value=value)],
        [flows.control("start", "end")],
    )
    assert await result_of(api, document) == value
    answer = await ask(api, "CheckDefinition", revision="acme/pipeline@draft", document=document)
    assert answer.runnable
