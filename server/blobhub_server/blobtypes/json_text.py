"""JSON values as the text they are stored as."""

from __future__ import annotations

import json
from typing import Any

from blobhub_server.errors import InvalidValue


def encode(field: str, value: Any, max_bytes: int) -> str:
    """The value as compact JSON text. Raises InvalidValue when it is not JSON or is longer than `max_bytes`."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise InvalidValue(field, "must hold finite numbers only") from None
    if len(text.encode()) > max_bytes:
        raise InvalidValue(field, f"must be at most {max_bytes} bytes as JSON")
    return text


def depth(value: Any) -> int:
    """How many lists and objects are around the innermost value."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0
