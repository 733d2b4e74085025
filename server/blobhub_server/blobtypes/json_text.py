"""JSON values, exactly: read from text, written as text, within bounds.

A value is what Python's `json` makes of it. A number that is written without fraction and exponent is an integer, and must
fit 64 bits, signed or unsigned. Any other number is a 64-bit float, the nearest one, and must be finite. All checks are made
on text, by searches that run in C and go into nothing: neither a text of a million brackets nor one of a million numbers
holds the server up.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection
from typing import Any

from blobhub_server.errors import InvalidValue

MAX_BYTES = 1 << 20
MAX_VALUE_ITEMS = 10_000
"""What the lists and objects of a value hold in all. What is done with one in one go takes up to 10 ms for so many."""
MAX_DEPTH = 24
"""Lists and objects around the innermost value. Protobuf reads a hundred levels, of which an object takes three."""
MIN_INTEGER, MAX_INTEGER = -(1 << 63), (1 << 64) - 1
MAX_EXACT = (1 << 53) - 1
"""The largest integer that no other one is rounded to as a float (RFC 8259, 6)."""

# Possessive, so that a text without its closing quote is passed over once and not once for every way to split it.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKET = re.compile(r"[^\[\]]+")
_MANY_DIGITS = [(8, re.compile(r"[0-9]{2}")), (4, re.compile(r"[0-9]{4}"))]
"""Of sixteen digits in a row, among every eighth character two are next to each other, among every fourth four."""
_LONG_INTEGER = re.compile(r"(?<![0-9.eE+-])-?[0-9]{16,}+(?![.eE])")
_NEGATIVE_ZERO = re.compile(r"-0(?![0-9.eE])")
# A table that knows all of ASCII is applied in a tenth of the time.
_BRACKETS = dict.fromkeys(range(128)) | str.maketrans("[{}]", "[[]]")

# `json.dumps` makes one for each call that does not take its defaults, which takes longer than writing a small value.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class _DuplicateKey(ValueError):
    """An object has a key twice."""


class _NotJson(ValueError):
    """A word that Python's reader takes and JSON does not have."""


def parse(field: str, text: str, max_bytes: int = MAX_BYTES) -> tuple[Any, str]:
    """The value that a JSON text says, and its compact text. Raises InvalidValue, which says what is allowed."""
    require_bounds(field, text, max_bytes)
    try:
        value = load(text)
    except _DuplicateKey as error:
        raise InvalidValue(field, str(error)) from None
    except (ValueError, RecursionError) as error:
        raise InvalidValue(field, f"must be one JSON value: {_cause(error)}") from None
    return value, encode(field, value, max_bytes)


def load(text: str) -> Any:
    """The value that a JSON text says, whatever its bounds. Raises ValueError and RecursionError."""
    # Python has no integer -0, and whoever writes it means the float.
    parse_int = _signed_zero if _NEGATIVE_ZERO.search(text) else None
    return json.loads(text, parse_int=parse_int, parse_constant=_no_constant, object_pairs_hook=_unique)


def encode(field: str, value: Any, max_bytes: int = MAX_BYTES) -> str:
    """The value as compact JSON text. Raises InvalidValue, likewise."""
    try:
        text = write(value)
    except RecursionError:
        raise InvalidValue(field, _too_deep()) from None
    except ValueError:
        raise InvalidValue(field, "must hold finite numbers only: not NaN, and none beyond ±1.8e308") from None
    except TypeError:
        raise InvalidValue(field, "must hold nothing but what JSON has") from None
    require_bounds(field, text, max_bytes)
    return text


def write(value: Any) -> str:
    """The value as compact JSON text, whatever its bounds. Raises RecursionError, ValueError and TypeError."""
    return _ENCODER.encode(value)


def require_bounds_of_all(field: str, texts: Collection[str]) -> None:
    """Raise InvalidValue when the compact texts of several values have more bytes or items together than one may."""
    size = sum(len(text.encode()) for text in texts)
    if size > MAX_BYTES:
        raise InvalidValue(field, f"must be at most {MAX_BYTES} bytes as JSON in all, not {size}")
    # An item takes two characters at least, so most texts are not looked through.
    if (
        size > 2 * MAX_VALUE_ITEMS
        and (items := sum(_count_items(_STRING.sub('"', text)) for text in texts)) > MAX_VALUE_ITEMS
    ):
        raise InvalidValue(field, f"must have at most {MAX_VALUE_ITEMS} items in lists and objects in all, not {items}")


def require_bounds(field: str, text: str, max_bytes: int = MAX_BYTES) -> None:
    """Raise InvalidValue when a JSON text is longer, deeper or has more items or longer integers than a value may, or half a
    character.

    Says nothing about whether the text is JSON.
    """
    # A text has at least as many bytes as characters, so most are not encoded to be measured.
    size = len(text) if len(text) > max_bytes else _size(field, text)
    if size > max_bytes:
        raise InvalidValue(field, f"must be at most {max_bytes} bytes as JSON, not {size} or more")
    brackets = text.count("[") + text.count("{")
    many = brackets + text.count(",") > MAX_VALUE_ITEMS
    if brackets <= MAX_DEPTH and not many and not _may_have_long_digits(text):
        return
    bare = _STRING.sub('"', text)
    if many and (items := _count_items(bare)) > MAX_VALUE_ITEMS:
        raise InvalidValue(field, f"must have at most {MAX_VALUE_ITEMS} items in lists and objects, not {items}")
    if brackets > MAX_DEPTH and _is_deeper(bare, MAX_DEPTH):
        raise InvalidValue(field, _too_deep())
    if not _may_have_long_digits(bare):
        return
    for found in _LONG_INTEGER.finditer(bare):
        # 64 bits are at most 20 digits; Python refuses to read very long ones.
        if len(found[0]) > 21 or not MIN_INTEGER <= int(found[0]) <= MAX_INTEGER:
            message = f"must hold integers from {MIN_INTEGER} to {MAX_INTEGER} only, not {found[0][:40]}"
            raise InvalidValue(field, f"{message}; write it as a text, or as a float with an exponent")


def measure(text: str, few: int = 0) -> tuple[int, bool]:
    """How many items the lists and objects of a compact text have in all, and whether floats alone could say it exactly.

    Where these are no more than `few`, some may be counted that are within texts.
    """
    most, long_digits = sum(map(text.count, ",[{")), _may_have_long_digits(text)
    if most <= few and not long_digits:
        return most, True
    bare = _STRING.sub('"', text)
    return _count_items(bare), all(abs(int(found[0])) <= MAX_EXACT for found in _LONG_INTEGER.finditer(bare))


def _count_items(bare: str) -> int:
    """How many items a text without its strings has. Lists and objects with nothing but white space count as one of one."""
    return sum(map(bare.count, ",[{")) - bare.count("[]") - bare.count("{}")


def is_deeper(text: str, depth: int) -> bool:
    """Whether a JSON text nests more lists and objects than that, or would for a reader that goes on."""
    return text.count("[") + text.count("{") > depth and _is_deeper(_STRING.sub('"', text), depth)


def _size(field: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise InvalidValue(field, "must not hold half of a surrogate pair, which is no character") from None


def _may_have_long_digits(text: str) -> bool:
    """Whether there may be sixteen digits in a row, as every long integer has. Few texts without them are taken for one."""
    # To look at every character takes long, and most texts are done with an eighth of them.
    return len(text) >= 16 and all(digits.search(text[::stride]) is not None for stride, digits in _MANY_DIGITS)


def _is_deeper(bare: str, depth: int) -> bool:
    """Whether a text without its strings nests deeper than that, or would for a reader that goes on.

    Each round removes the innermost brackets of all that is there.
    """
    left = bare.translate(_BRACKETS)
    if not bare.isascii():
        left = _NO_BRACKET.sub("", left)
    for _ in range(depth):
        left = left.replace("[]", "")
    return "[]" in left or left.startswith("[" * (depth + 1))


def _too_deep() -> str:
    return f"must nest at most {MAX_DEPTH} lists and objects; it nests deeper"


def _signed_zero(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)


def _no_constant(name: str) -> Any:
    raise _NotJson(f"{name} is none")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _DuplicateKey(f"must have each key of an object once; {json.dumps(key[:40])} is there twice")
    return made


def _cause(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg[0].lower()}{error.msg[1:]} at character {error.pos}"
    return str(error)[:100]
