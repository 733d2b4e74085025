"""JSON texts of large values, made without a value where that is quicker."""

from __future__ import annotations

import json
from typing import Any

from hostile_expressions import NAMES

BOUND = 1 << 20
"""The most bytes that a value has as JSON."""


def compact(value: Any) -> str:
    """A value as JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def repeated(item: str, *, bound: int = BOUND) -> str:
    """A list of one item, as often as fits."""
    return f"[{','.join([item] * ((bound - 1) // (len(item.encode()) + 1)))}]"


def nested(depth: int, inner: str = "1", *, objects: bool = False) -> str:
    """A value inside so many lists or objects."""
    return '{"":' * depth + inner + "}" * depth if objects else "[" * depth + inner + "]" * depth


OBJECTS = {name: text for name, text in ((name, compact(value)) for name, value in NAMES.items()) if len(text) > 10_000}
"""The values that hostile expressions work on and that are large, each as a session object."""
