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
    """The type of a value object; None for plain JSON.

    What only begins like one is plain JSON: an event of another system may say `{"type": "message", "text": …}` of itself.
    """
    if not isinstance(value, dict):
        return None
    named = value.get("type")
    if not isinstance(named, str):
        return None
    if named in _INSIDE and _INSIDE[named] in value:
        return named
    if named == "message":
        return named if _is_message(value.get(named)) else None
    if named in ("thread", "graph", "file"):
        return named if isinstance(value.get(named), dict) else None
    return named if named == "messages" else None


def unwrap(value: Any) -> Any:
    """The plain JSON inside a value object; a message's text, its parts joined in order; plain JSON as it is."""
    kind = type_of(value)
    if kind in _INSIDE:
        return value[_INSIDE[kind]]
    if kind == "message":
        return "".join(part["text"] for part in value["message"]["content"] if part["type"] == "text")
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


def _is_message(message: Any) -> bool:
    """Whether it has a list of typed parts, of which those of type text have a text."""
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, list) and all(map(_is_part, content))


def _is_part(part: Any) -> bool:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        return False
    return part["type"] != "text" or isinstance(part.get("text"), str)


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
