"""Session objects: typed values that the executions of a session share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from blobhub_server.blobtypes import json_text

TYPES = frozenset(
    {
        "text",
        "integer",
        "float",
        "boolean",
        "choice",
        "json",
        "message",
        "messages",
        "thread",
        "graph",
        "file",
    }
)


@dataclass(slots=True)
class SessionObject:
    """An object's record. `value` is JSON text; lists leave it empty."""

    session_id: str
    alias: str
    type: str
    value: str
    size: int
    create_time: datetime
    update_time: datetime
    etag: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What one read of some objects of a session has found: values and etags, by alias. Absent ones are in neither.

    A value that was left out has something in its place that stands for it. `memory_bytes` is about what the values take.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    etags: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 0


def type_of(value: Any) -> str:
    """The type of a value object; `json` for any other JSON value."""
    named = value.get("type") if isinstance(value, dict) else None
    return named if isinstance(named, str) and named in TYPES else "json"


def encode(value: Any) -> str:
    """The value as compact JSON text. Raises InvalidValue when it is larger than an object may be, or is not JSON."""
    return json_text.encode("value", value)
