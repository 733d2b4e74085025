"""CEL, the Common Expression Language (https://cel.dev), as components use it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from blobhub_server.workflow.components.contract import ComponentError, Inputs
from blobhub_server.workflow.values import unwrap

if TYPE_CHECKING:
    import cel

MAX_LENGTH = 10_000

_PLACE = re.compile(r"<input>:(\d+):(\d+): .*")


@lru_cache(maxsize=2048)
def _program(source: str) -> cel.Program:
    import cel  # noqa: PLC0415  its package loads a command line with an editor: a tenth of a server's start

    if len(source) > MAX_LENGTH:
        raise ValueError(f"is longer than {MAX_LENGTH} characters")
    return cel.compile(source)


def compile_expression(source: str) -> str | None:
    """What is wrong with an expression, in words; None when it compiles."""
    try:
        _program(source)
    except Exception as error:
        told = str(error)
        # The message quotes the expression first, which may have several lines, or words like those of the place.
        place = _PLACE.search(told.partition(f"'{source}': ")[2])
        return f"is not a CEL expression: {place[0] if place else told.splitlines()[0]}"[:200]
    return None


def place_in_expression(message: str) -> tuple[int, int]:
    """Line and column, from 1, that such words are about; zeros when they name none."""
    place = _PLACE.search(message)
    return (int(place[1]), int(place[2])) if place else (0, 0)


def variables(inputs: Inputs, *, without: tuple[str, ...]) -> dict[str, Any]:
    """The variables that an expression sees: the plain values of all inputs but the component's own settings."""
    return {name: unwrap(value) for name, value in inputs.items() if name not in without}


def evaluate(source: str, known: Mapping[str, Any]) -> Any:
    """The value of an expression, as JSON. Raises ComponentError."""
    try:
        return _plain(_program(source).execute(dict(known)))
    except Exception as error:
        message = str(error).splitlines()[0][:500] if str(error) else "cannot be evaluated"
        raise ComponentError(message, reason="EXPRESSION_ERROR", retryable=False) from None


def _plain(value: Any) -> Any:
    """A CEL value as JSON: times and bytes as text, keys as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("the result is not a finite number")
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value)
