"""Inputs that are evaluated at each firing: templates and expressions over the firing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blobhub_server.blobtypes.expressions import Computed, ExpressionError, Fuel, evaluate_computed, unknown_name
from blobhub_server.scheduler.rules.document import ScheduleDocument

NAMES = ("nominal_time", "previous_time", "schedule")


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
    computed = Computed.of(value)
    if computed is None:
        return
    yield from ((computed.kind, flaw) for flaw in computed.flaws())
    for use in computed.names():
        if use.name not in NAMES:
            yield computed.kind, unknown_name(use.name, NAMES, line=use.line, column=use.column)


def _rendered(value: Any, names: dict[str, Any], fuel: Fuel) -> Any:
    """A value, evaluated where it is a template or an expression."""
    computed = Computed.of(value)
    return value if computed is None else evaluate_computed(computed, names, fuel)
