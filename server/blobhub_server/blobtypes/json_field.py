"""JSON values in messages: a field of type `google.protobuf.Value`, and beside it the text field `<field>_json`.

`protos/blobhub/v1/execution.proto` says at `ExecutionInput` what the contract promises. A message that only goes out has
both fields; where a client may set either, the two are a `oneof`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from blobhub_server.blobtypes import json_text
from blobhub_server.rpc.value_bound import MAX_MESSAGE_ITEMS
from blobhub_server.rpc.wire import from_value, to_value

MAX_TWICE_BYTES = 256 << 10
"""Size as JSON up to which a value that is not exact as a Value is in a message in both forms."""


def read(message: Message, field: str, max_bytes: int = json_text.MAX_BYTES, *, path: str = "") -> tuple[Any, str]:
    """The value that a message holds, null where neither field is set, and its compact JSON text.

    `path` is the field as people write it, where it is not the name. Raises InvalidValue.
    """
    path = path or field
    text = getattr(message, f"{field}_json")
    if text or _chosen(message, field) == f"{field}_json":
        return json_text.parse(f"{path}_json", text, max_bytes)
    value = from_value(getattr(message, field))
    return value, json_text.encode(path, value, max_bytes)


@dataclass(slots=True)
class ItemAllowance:
    """How many items the Values of a message may still have."""

    items: int = MAX_MESSAGE_ITEMS


def fill(message: Message, field: str, value: Any, *, allowance: ItemAllowance | None = None) -> None:
    """Put a value into a message, exactly, within the allowance that all values of the message share."""
    if isinstance(value, bool | str | float | None):
        getattr(message, field).CopyFrom(to_value(value))
    else:
        _fill(message, field, json_text.write(value), lambda: value, allowance or ItemAllowance())


def fill_text(message: Message, field: str, text: str, *, allowance: ItemAllowance | None = None) -> None:
    """Put the value that a compact JSON text says into a message, likewise; what stays text is not read."""
    _fill(message, field, text, lambda: json.loads(text), allowance or ItemAllowance())


def _fill(message: Message, field: str, text: str, value: Callable[[], Any], allowance: ItemAllowance) -> None:
    items, exact = json_text.measure(text, allowance.items)
    fits = items <= allowance.items and (exact or (len(text) <= MAX_TWICE_BYTES and not _chooses(message, field)))
    if fits:
        getattr(message, field).CopyFrom(to_value(value()))
        allowance.items -= items
    if not (fits and exact):
        setattr(message, f"{field}_json", text)


def _chooses(message: Message, field: str) -> bool:
    """Whether only one of the two fields can be set."""
    return message.DESCRIPTOR.fields_by_name[field].containing_oneof is not None


def _chosen(message: Message, field: str) -> str | None:
    """Which of the two fields is set, where only one can be."""
    oneof = message.DESCRIPTOR.fields_by_name[field].containing_oneof
    return message.WhichOneof(oneof.name) if oneof is not None else None
