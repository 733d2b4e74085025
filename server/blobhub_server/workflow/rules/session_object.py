"""Session objects: typed values that the executions of a session share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from blobhub_server.errors import InvalidValue

MAX_BYTES = 1 << 20

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


def type_of(value: Any) -> str:
    """The type of a value object; `json` for any other JSON value."""
    named = value.get("type") if isinstance(value, dict) else None
    return named if isinstance(named, str) and named in TYPES else "json"


def encode(value: Any) -> str:
    """The value as compact JSON text. Raises InvalidValue when it is larger than an object may be, or is not JSON."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise InvalidValue("value", "must hold finite numbers only") from None
    if len(text.encode()) > MAX_BYTES:
        raise InvalidValue("value", f"must be at most {MAX_BYTES} bytes as JSON")
    return text
