"""Inputs that are evaluated at each firing: templates and expressions over the firing.

    {"type": "template", "template": "since {{ previous_time }}"}
    {"type": "expression", "expression": "[previous_time, nominal_time]"}

A template that is nothing but one `{{ … }}` has that expression's value, whatever its type; any other one is a text. Plain
values are never interpreted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blobhub_server.blobtypes.expressions import ExpressionError, Fuel, InvalidSyntax, evaluate, parse, unknown_name
from blobhub_server.scheduler.rules.document import ScheduleDocument

NAMES = ("nominal_time", "previous_time", "schedule")
_HOLE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_ALONE = re.compile(r"\{\{((?:(?!\}\}).)*)\}\}", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class FiringContext:
    """What is known of a firing before it: its time, the time before it, if there was one, and its schedule."""

    nominal_time: datetime
    previous_time: datetime | None
    schedule_id: str
    schedule_alias: str
    timezone: str

    def names(self) -> dict[str, Any]:
        """The same, by the names that expressions use."""
        return {
            "nominal_time": time_text(self.nominal_time),
            "previous_time": None if self.previous_time is None else time_text(self.previous_time),
            "schedule": {"alias": self.schedule_alias, "id": self.schedule_id, "timezone": self.timezone},
        }


def time_text(time: datetime) -> str:
    """A time in UTC as text: `2027-01-31T08:00:00Z`, with a fraction only where it has one."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def render(document: ScheduleDocument, context: FiringContext) -> dict[str, Any]:
    """The inputs of a firing, by alias. Raises ExpressionError for one that has no value."""
    names, fuel = context.names(), Fuel()
    return {item.alias: _rendered(item.value, names, fuel) for item in document.input_data}


def check(value: Any) -> Iterator[tuple[str, ExpressionError]]:
    """What is wrong with the template or expression that a value is, if it is one: each with its key in the value."""
    kind = _kind(value)
    if kind == "expression":
        yield from ((kind, error) for error in _check_expression(value[kind], line=1, column=1))
    if kind == "template":
        yield from ((kind, error) for error in _check_template(value[kind]))


def _check_template(text: str) -> Iterator[ExpressionError]:
    end = 0
    for hole in _HOLE.finditer(text):
        yield from _check_expression(hole[1], *_position(text, hole.start(1)))
        end = hole.end()
    if (unclosed := text.find("{{", end)) >= 0:
        line, column = _position(text, unclosed)
        yield InvalidSyntax("has {{ without }}", line=line, column=column)


def _check_expression(text: str, line: int, column: int) -> Iterator[ExpressionError]:
    """What is wrong with an expression that begins at a line and column of the text that it is in."""
    for error in _problems(text):
        if error.line:
            error.column += column - 1 if error.line == 1 else 0
            error.line += line - 1
        yield error


def _problems(text: str) -> Iterator[ExpressionError]:
    try:
        for use in parse(text).names:
            if use.name not in NAMES:
                yield unknown_name(use.name, NAMES, line=use.line, column=use.column)
    except InvalidSyntax as error:
        yield error


def _position(text: str, offset: int) -> tuple[int, int]:
    """The line and the column of a character, counted from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _kind(value: Any) -> str:
    """`template` or `expression` for what is one, else empty."""
    kind = value.get("type") if isinstance(value, dict) else ""
    is_one = kind in ("template", "expression") and len(value) == 2 and isinstance(value.get(kind), str)
    return str(kind) if is_one else ""


def _rendered(value: Any, names: dict[str, Any], fuel: Fuel) -> Any:
    """A value, evaluated where it is a template or an expression."""
    kind = _kind(value)
    if not kind:
        return value
    text = value[kind]
    alone = text if kind == "expression" else whole[1] if (whole := _ALONE.fullmatch(text)) else None
    if alone is not None:
        return evaluate(parse(alone), names, fuel)
    return _HOLE.sub(lambda hole: evaluate(parse(f"str({hole[1]})"), names, fuel), text)
