"""JSON values in messages, as plain Python values and exactly.

    item = ExecutionInput(alias="order")
    set_value(item, {"id": 2**63 - 1})
    get_value(execution, "result")

A value is in one of two fields: `<field>`, a `google.protobuf.Value` with 64-bit floats only, or `<field>_json`, JSON text.
"""

from __future__ import annotations

import json
import math
from typing import Any

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value

MAX_EXACT = (1 << 53) - 1
"""The largest integer that no other one is rounded to as a 64-bit float."""
MAX_MESSAGE_ITEMS = 4_096
"""How many items the server takes in the Values of a request, in their lists and objects in all."""


def get_value(message: Message, field: str = "value") -> Any:
    """The value in a field of a message; None where there is none, as for null."""
    text = getattr(message, f"{field}_json")
    return json.loads(text) if text else _plain(getattr(message, field))


def set_value(message: Message, value: Any, field: str = "value") -> None:
    """Put a JSON value into a message: as a Value where that says it exactly and has few enough items, else as text.

    Raises TypeError and ValueError for what is not JSON.
    """
    text = json.dumps(value, allow_nan=False)
    message.ClearField(field)
    message.ClearField(f"{field}_json")
    if _is_exact(value) and _count_items(value) <= MAX_MESSAGE_ITEMS:
        _fill(getattr(message, field), value)
    else:
        setattr(message, f"{field}_json", text)


def _is_exact(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_exact, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_exact, value))
    return not isinstance(value, int) or abs(value) <= MAX_EXACT


def _count_items(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return len(inner) + sum(map(_count_items, inner))


def _fill(made: Value, value: Any) -> None:
    if value is None:
        made.null_value = 0  # type: ignore[assignment]  # the generated enum type of NULL_VALUE
    elif isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, int | float):
        made.number_value = value
    elif isinstance(value, str):
        made.string_value = value
    elif isinstance(value, dict):
        made.struct_value.SetInParent()
        for key, item in value.items():
            _fill(made.struct_value.fields[key], item)
    else:
        made.list_value.SetInParent()
        for item in value:
            _fill(made.list_value.values.add(), item)


def _plain(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {key: _plain(item) for key, item in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind == "number_value":
        return _number(value.number_value)
    return getattr(value, kind) if kind in ("string_value", "bool_value") else None


def _number(number: float) -> int | float:
    """A whole number as an integer, where a float says it exactly; -0.0 has a sign that an integer has not."""
    whole = number.is_integer() and abs(number) <= MAX_EXACT and (number or math.copysign(1, number) > 0)
    return int(number) if whole else number
