"""Workflows that count in a session object, and what they have counted to."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import flows
from blobhub.v1 import execution_pb2 as pb
from blobhub_server.blobtypes import json_field
from calling import ask
from runs import run
from served import Api

COUNTER = "counter"


def session_value(id_: str = COUNTER, *, operation: str = "", value: Any = None) -> dict[str, Any]:
    """A `data.value` of the session."""
    made = flows.value(id_, id_, persistence="session", value=value)
    if operation:
        made["ports"].append(flows.port("data_input", "operation", operation))
    return made


def writer(step: dict[str, Any], *, reads: bool, operation: str = "", value: Any = None, before: str = "") -> str:
    """Start, one step whose `result` is written to the counter, end. `reads`: it is given the counter as `n`.

    `before` is a script that runs first, so that the step is not in the execution's first turn.
    """
    components = [flows.component("start", "flow.start"), step, flows.component("end", "flow.end")]
    connections = [flows.control(step["id"], "end", "success"), flows.data(step["id"], "result", COUNTER, "value")]
    connections.append(flows.data(step["id"], "result", "end", "value"))
    components.append(session_value(operation=operation, value=value))
    if reads:
        connections.append(flows.data(COUNTER, "value", step["id"], "n"))
    if before:
        components.append(flows.component("before", "logic.code", code=before))
        connections += [flows.control("start", "before"), flows.control("before", step["id"], "success")]
    else:
        connections.append(flows.control("start", step["id"]))
    return flows.document(components, connections)


def expression(text: str = "n + 1", **how: Any) -> str:
    """An expression that counts."""
    return writer(flows.component("count", "logic.expression", expression=text), reads="n" in text, **how)


SCRIPT = "set_data_output('result', inputs.n + 1)"


def script(source: str = SCRIPT, **how: Any) -> str:
    """A script that counts."""
    return writer(flows.component("count", "logic.code", code=source), reads="inputs" in source, **how)


COUNTERS = {
    "expression": expression(value=0),
    "expression after a script": expression(value=0, before="pass"),
    "script": script(value=0),
    "operation of an expression": expression("1", operation="add"),
    "operation of a script": script("set_data_output('result', 1)", operation="add"),
}
"""Every way to count, by what it is."""


def after_steps(count: int) -> str:
    """An expression that counts in the same turn in which so many are evaluated before it."""
    counting = json.loads(expression(value=0))
    names = [f"before-{number}" for number in range(count)]
    counting["components"] += [flows.component(name, "logic.expression", expression="1") for name in names]
    counting["connections"] = [c for c in counting["connections"] if c["source_id"] != "start"]
    counting["connections"] += [flows.control("start", names[0])]
    counting["connections"] += [flows.control(a, b, "success") for a, b in pairwise([*names, "count"])]
    return json.dumps(counting)


async def run_many(api: Api, session_id: str, count: int, definition: str = "workflow") -> list[pb.Execution]:
    """So many at once."""
    return await asyncio.gather(*(run(api, session_id, definition) for _ in range(count)))


async def put(api: Api, session_id: str, value: Any, alias: str = COUNTER, **how: str) -> str:
    """Put a session object; its etag."""
    fields = {"value_json": json.dumps(value)}
    answer = await ask(api, "PutSessionObject", session=session_id, alias=alias, **fields, **how)
    return answer.session_object.etag


async def delete(api: Api, session_id: str, alias: str = COUNTER) -> None:
    """Delete a session object."""
    await ask(api, "DeleteSessionObject", session=session_id, alias=alias)


async def value_of(api: Api, session_id: str, alias: str = COUNTER) -> tuple[Any, str]:
    """A session object's value and etag."""
    found = (await ask(api, "GetSessionObject", session=session_id, alias=alias)).session_object
    return json_field.read(found, "value")[0], found.etag


async def count_in(api: Api, session_id: str) -> Any:
    """What the counter has counted to."""
    return (await value_of(api, session_id))[0]
