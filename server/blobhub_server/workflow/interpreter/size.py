"""How large the values of an execution are: what its log holds of them, and its state.

They are counted as the log is folded, so they are counted the same on every server and after every restart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from blobhub_server.blobtypes.json_text import MAX_BYTES, MAX_VALUE_ITEMS
from blobhub_server.workflow.interpreter.records import Record

MAX_LOG_BYTES = 64 << 20
"""How large an execution's log may become; an execution that goes on beyond fails with `LOG_LIMIT`."""
EVENT_BYTES = 500
"""What an event counts for beside its values: about what the database keeps of it."""

_CONTAINERS = (list, dict)
_SCALAR_BYTES = 8
_FLOAT_BYTES = 20
"""What a float takes as text, about: up to 17 digits, sign, point and exponent."""
_ITEM_BYTES = 64
"""What an item of a list or an object takes in memory beside its text, about."""
MAX_VALUE_BYTES = MAX_BYTES + _ITEM_BYTES * MAX_VALUE_ITEMS
"""What a value of a mebibyte takes in memory at most, about."""


def measure(record: Record) -> tuple[int, int, Mapping[str, int]]:
    """How many bytes a record adds to the log, and what all its values take in memory, and the private ones by name."""
    logged, memory, kept = EVENT_BYTES, 0, {}
    for name in ("value", "printed", "result"):
        if name in record.public:
            length, size = _sizes(record.public[name])
            logged += length
            memory += size
    if record.private:
        # Outputs come last: where a route has the name of a session object, it is the output that is kept.
        for part in ("session", "input_data", "signal", "outputs"):
            for name, value in record.private.get(part, {}).items():
                length, kept[name] = _sizes(value)
                logged += length
                memory += kept[name]
    return logged, memory, kept


def memory_of(value: Any) -> int:
    """What a value takes in memory, about."""
    return _sizes(value)[1]


def json_memory(text: str) -> int:
    """What the value of a JSON text takes in memory, about as `memory_of` has it, without going over the value."""
    items = text.count(",") + text.count("[") + text.count("{")
    return (len(text) if text.isascii() else 4 * len(text)) + _ITEM_BYTES * min(items, MAX_VALUE_ITEMS)


def _sizes(value: Any) -> tuple[int, int]:
    """About how long a value is as JSON, and how many bytes it takes in memory.

    It is not encoded for that: this runs on the event loop, where the digits of 10,000 floats would hold everybody up.
    """
    if isinstance(value, str):
        return len(value), len(value) if value.isascii() else 4 * len(value)
    if type(value) not in _CONTAINERS:
        return _SCALAR_BYTES, _SCALAR_BYTES
    length = items = 0
    texts: list[str] = []
    containers: list[Any] = [value]
    for container in containers:  # It grows by those that are found within.
        items += len(container) + 1
        if type(container) is dict:
            texts += container
        for item in container.values() if type(container) is dict else container:
            kind = type(item)
            if kind is str:
                texts.append(item)
            elif kind is int:
                length += 1 + item.bit_length() * 3 // 10
            elif kind is float:
                length += _FLOAT_BYTES
            elif item and kind in _CONTAINERS:
                containers.append(item)
            else:
                length += _SCALAR_BYTES
    # A separator takes a character, and quotes take two. What is escaped takes more, and is escaped in one go.
    length += items + 2 * len(texts) + len(json.dumps("".join(texts)))
    # A list counts as an item where it stands and where it is gone over, so there seem to be more than a value has.
    return length, length + _ITEM_BYTES * min(items, MAX_VALUE_ITEMS)
