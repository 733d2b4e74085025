"""A JSON document as its bare content: read from text, with the place of everything that is no JSON or has two meanings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from blobhub_server.blobtypes import json_text

MAX_DEPTH = 64
"""Lists and objects around the innermost thing in a document. Values are less deep, and so is all that is read."""
MAX_FLAWS = 200
_SHOWN = 60
_BYTE_ORDER_MARK = "\ufeff"
_LONG_INTEGER = re.compile(r"[0-9]{19}")
_NEGATIVE_ZERO = re.compile(r"-0(?![0-9.eE])")


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a document's text: at which path, in words, and where in the text, if that is known."""

    path: str
    message: str
    line: int = 0
    column: int = 0


class _Repeating(dict[str, Any]):
    """An object that has some key twice."""

    key: str


@dataclass(frozen=True, slots=True)
class _NoNumber:
    """A word that Python's reader takes for a number and JSON does not have."""

    word: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Where something is: in what, and under which key or number. Paths are written for flaws alone."""

    within: _Place | None
    step: str | int


def load(text: str) -> tuple[Any, list[Flaw]]:
    """The content of a document, and what is wrong with its text. Content with a flaw is not to be used."""
    if text.startswith(_BYTE_ORDER_MARK):
        return None, [
            Flaw(path="", message="begins with a byte order mark, which JSON does not have; leave it out", line=1, column=1)
        ]
    if json_text.is_deeper(text, MAX_DEPTH):
        return None, [Flaw(path="", message=f"must nest at most {MAX_DEPTH} lists and objects; it nests deeper")]
    reader = _Reader()
    try:
        content = json.loads(
            text,
            # Python reads no integer of thousands of digits, and has no integer -0: whoever writes it means the float.
            parse_int=_integer if _LONG_INTEGER.search(text) or _NEGATIVE_ZERO.search(text) else None,
            parse_constant=reader.constant,
            object_pairs_hook=reader.pairs,
        )
    except json.JSONDecodeError as error:
        cause = f"{error.msg[0].lower()}{error.msg[1:]}"
        return None, [Flaw(path="", message=f"is not a JSON document: {cause}", line=error.lineno, column=error.colno)]
    except (ValueError, RecursionError):
        return None, [Flaw(path="", message="is not a JSON document")]
    return content, list(_flaws(content)) if reader.has_flaws else []


def in_path(key: str) -> str:
    """A key as a part of a path, whatever it holds."""
    return f".{key}" if len(key) <= _SHOWN and key.isidentifier() else f"[{quoted(key)}]"


def quoted(text: str) -> str:
    """A text of a document within a message: cut, in quotes, and in characters that anything can show."""
    return json.dumps(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


class _Reader:
    """What `json` calls while it reads: notes that there is a flaw, for it does not say where."""

    def __init__(self) -> None:
        self.has_flaws = False

    def pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) == len(pairs):
            return made
        self.has_flaws = True
        repeating = _Repeating(made)
        repeating.key = _first_repeated(key for key, _ in pairs)
        return repeating

    def constant(self, word: str) -> _NoNumber:
        self.has_flaws = True
        return _NoNumber(word)


def _first_repeated(keys: Iterable[str]) -> str:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            break
        seen.add(key)
    return key


def _integer(text: str) -> int | float:
    # What is too long for 64 bits is refused by whoever looks at the value, who shows no more digits than these.
    return -0.0 if text == "-0" else int(text[:41])


def _flaws(content: Any) -> Iterator[Flaw]:
    """The flaws in a content, in the order of the document, as many as are told."""
    left: list[tuple[_Place | None, Any]] = [(None, content)]
    count = 0
    while left and count < MAX_FLAWS:
        place, value = left.pop()
        if isinstance(value, _NoNumber):
            count += 1
            yield Flaw(path=_path(place), message=f"must be what JSON has; {value.word} is none of it")
        elif isinstance(value, dict):
            if isinstance(value, _Repeating):
                count += 1
                path = _path(_Place(place, value.key))
                yield Flaw(path=path, message=f"must have each key of an object once; {quoted(value.key)} is there twice")
            left += [(_Place(place, key), item) for key, item in reversed(value.items())]
        elif isinstance(value, list):
            left += [(_Place(place, number), value[number]) for number in range(len(value) - 1, -1, -1)]


def _path(place: _Place | None) -> str:
    parts = []
    while place is not None:
        parts.append(in_path(place.step) if isinstance(place.step, str) else f"[{place.step}]")
        place = place.within
    return "".join(reversed(parts)).removeprefix(".")
