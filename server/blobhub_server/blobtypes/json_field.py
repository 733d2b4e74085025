"""JSON values in messages: a field of type `google.protobuf.Value`, and beside it the text field `<field>_json`.

`protos/blobhub/v1/execution.proto` says at `ExecutionInput` what the contract promises. A message that only goes out has
both fields; where a client may set either, the two are a `oneof`.
"""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.message import Message

from blobhub_server.blobtypes import json_text
from blobhub_server.rpc.wire import from_value, to_value

MAX_ITEMS = 32_768
"""How many items a message's Values have in all: one takes up to ten bytes more than in JSON, and time to build.

A record of metadata, of 64 KiB, never has more."""
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


def fill(message: Message, field: str, value: Any, *, text: str = "", room: int = MAX_ITEMS) -> int:
    """Put a value into a message, exactly; `text` is its compact JSON text, if that is known.

    `room` is how many items it may have in a Value. Returns how many it has in one, 0 where it is there as text alone.
    """
    if isinstance(value, bool | str | float | None):
        getattr(message, field).CopyFrom(to_value(value))
        return 0
    text = text or json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    items, exact = json_text.measure(text)
    fits = items <= room and (exact or (len(text) <= MAX_TWICE_BYTES and not _chooses(message, field)))
    if fits:
        getattr(message, field).CopyFrom(to_value(value))
    if not (fits and exact):
        setattr(message, f"{field}_json", text)
    return items if fits else 0


def _chooses(message: Message, field: str) -> bool:
    """Whether only one of the two fields can be set."""
    return message.DESCRIPTOR.fields_by_name[field].containing_oneof is not None


def _chosen(message: Message, field: str) -> str | None:
    """Which of the two fields is set, where only one can be."""
    oneof = message.DESCRIPTOR.fields_by_name[field].containing_oneof
    return message.WhichOneof(oneof.name) if oneof is not None else None
