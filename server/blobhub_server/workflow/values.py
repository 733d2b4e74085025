"""Value objects: `{"type": "text", "text": …}` and their like, and the plain JSON inside them."""

from __future__ import annotations

import marshal
from typing import Any

_INSIDE = {
    "text": "text",
    "integer": "integer",
    "float": "float",
    "boolean": "flag",
    "choice": "id",
    "json": "json",
}


def type_of(value: Any) -> str | None:
    """The type of a value object; None for plain JSON."""
    if not isinstance(value, dict):
        return None
    named = value.get("type")
    if not isinstance(named, str):
        return None
    if named in _INSIDE and _INSIDE[named] in value:
        return named
    return named if named in ("message", "messages", "thread", "graph", "file") else None


def unwrap(value: Any) -> Any:
    """The plain JSON inside a value object; a message's text, its parts joined in order; plain JSON as it is."""
    kind = type_of(value)
    if kind in _INSIDE:
        return value[_INSIDE[kind]]
    if kind == "message":
        return _text_of(value.get("message"))
    return value


def wrap(value: Any) -> dict[str, Any]:
    """The value as a value object: one as it is, plain JSON in one of its own type."""
    if type_of(value) is not None:
        return dict(value)
    match value:
        case bool():
            return {"type": "boolean", "flag": value}
        case int():
            return {"type": "integer", "integer": value}
        case float():
            return {"type": "float", "float": value}
        case str():
            return {"type": "text", "text": value}
    return {"type": "json", "json": value}


def wrap_like(wrapped: Any, plain: Any) -> Any:
    """Plain JSON as a value object of the type that `wrapped` is of; by itself, if that is plain JSON."""
    kind = type_of(wrapped)
    if kind not in _INSIDE:
        return plain
    if kind == "integer" and not isinstance(plain, int):
        kind = "float"
    return {"type": kind, _INSIDE[kind]: plain}


def are_same(value: Any, other: Any) -> bool:
    """Whether two JSON values are one and the same, with the keys of objects in the same order.

    To Python 1, 1.0 and True are equal; for an expression they are not.
    """
    # Version 2 writes each type in its own way and knows no references, so the same values give the same bytes. It is much
    # faster than JSON, and values have up to a mebibyte.
    return bool(value == other) and marshal.dumps(value, 2) == marshal.dumps(other, 2)


def is_number(plain: Any) -> bool:
    """Whether plain JSON is a number."""
    return isinstance(plain, int | float) and not isinstance(plain, bool)


def _text_of(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict) and part.get("type") == "text")


def fits(value: Any, type_: str) -> bool:
    """Whether a value, plain or wrapped, is of a port's type; every value fits a port of no type."""
    plain = unwrap(value)
    if type_ in ("text", "choice"):
        return isinstance(plain, str)
    if type_ == "integer":
        return isinstance(plain, int) and not isinstance(plain, bool)
    if type_ == "float":
        return is_number(plain)
    if type_ == "boolean":
        return isinstance(plain, bool)
    return True
