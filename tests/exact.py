"""JSON values at their bounds, and ways to send them: for the tests of exact values."""

from __future__ import annotations

import json
import math
from typing import Any

import flows
import grpc
import pytest
from blobhub.v1 import definition_pb2, execution_pb2
from blobhub_client import set_value
from calling import ask
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from hypothesis import example, settings
from hypothesis import strategies as st
from scale import SHARED_FIXTURES, scaled
from served import Api

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
    code = "emit_output(inputs.given)\nset_data_output('given', inputs.given)"
    script = flows.component("script", "logic.code", code=code)
    gather = "set_data_output('all', [inputs.a, inputs.b, inputs.c])"
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


def given_to(value: Any, *, text: bool) -> execution_pb2.ExecutionInput:
    return filled(execution_pb2.ExecutionInput(alias="given"), value, text=text)


def constant_of(content: definition_pb2.WorkflowDefinition) -> definition_pb2.WorkflowPort:
    (port,) = [port for part in content.components if part.id == "constant" for port in part.ports if port.route == "value"]
    return port


LARGE = [
    "x" * ((1 << 20) - 2),
    {"k" * ((1 << 20) - 6): 1},
    "\0" * 170_000,
    [[]] * 10_000,
    {str(number): number for number in range(10_000)},
    [2**63] * 10_000,
    [1e308] * 4_096,
    "\U0001d11e" * 260_000,
]
REFUSED = [
    *(
        "1" + "0" * 400,
        "-1" + "0" * 30,
        "1e400",
        "NaN",
        "[-Infinity]",
        '"\\ud800"',
        '{"\\udfff": 1}',
        '{"a": 1, "a": 2}',
        "[1",
        "'a'",
    ),
    *(json.dumps(nested(25)), json.dumps(nested(25, objects=True)), json.dumps([0] * 10_001), '"' + "x" * (1 << 20) + '"'),
]
REFUSED_VALUES = [
    Value(number_value=float("nan")),
    Value(number_value=float("-inf")),
    ParseDict(nested(25, inner=0), Value()),
    ParseDict(nested(25, inner=0, objects=True), Value()),
    ParseDict([0] * 4_097, Value()),
    Value(string_value="x" * (1 << 20)),
]
