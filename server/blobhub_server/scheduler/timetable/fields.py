"""The fields of a cron expression, and the form of what stands in one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from blobhub_server.scheduler.timetable.errors import InvalidCron

MONTH_NAMES = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAY_NAMES = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

_ITEM = re.compile(r"(?:\*|(?P<first>[0-9]{1,4}|[A-Z]{3})(?:-(?P<last>[0-9]{1,4}|[A-Z]{3}))?)(?:/(?P<step>[0-9]{1,4}))?")


@dataclass(frozen=True, slots=True)
class Item:
    """One part of a list, as it is written: `*`, `5`, `MON-FRI`, `*/15`, `10/5`, `8-18/2`.

    `first` is None for `*`; `last` is None for one number, and the last of the field for `10/5`.
    """

    text: str
    first: str | None
    last: str | None
    step: str | None


@dataclass(frozen=True, slots=True)
class Field:
    """A field: its name, the numbers that are allowed in it, and the names for them, of which the first is that of `low`."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    takes_steps: bool = True

    @property
    def allowed(self) -> str:
        """The numbers and names that are allowed, as a message has them: `1-12 or JAN-DEC`."""
        numbers = f"{self.low}-{self.high}"
        return f"{numbers} or {self.names[0]}-{self.names[-1]}" if self.names else numbers

    @property
    def max_step(self) -> int:
        """The largest step. With a larger one, a step would say no more than the number that it begins at."""
        return min(self.high, self.high - self.low + 1)

    def items(self, text: str) -> list[Item]:
        """The parts of a list. Names may be written in lower case."""
        return [self._item(part) for part in text.split(",")]

    def _item(self, text: str) -> Item:
        matched = _ITEM.fullmatch(text.upper()) if text.isascii() else None
        if matched is None:
            forms = "*, 5, 1-5, */2, 1/2, 1-5/2" if self.takes_steps else "*, 5, 1-5"
            raise InvalidCron(
                self.name, text, "is not of a form that is allowed:", f"{forms} or a list of such, of {self.allowed}"
            )
        first, last, step = matched.group("first", "last", "step")
        last = str(self.high) if first and step and not last else last
        item = Item(text=text, first=first, last=last, step=step)
        if item.step is not None and not self.takes_steps:
            raise InvalidCron(self.name, text, "has a step, which this field does not take:", self.allowed)
        if item.step is not None and not 1 <= int(item.step) <= self.max_step:
            raise InvalidCron(self.name, text, f"has the step {item.step}, which is not in", f"1-{self.max_step}")
        return item

    def number(self, text: str) -> int:
        """The number that a number or a name in upper case stands for."""
        if text in self.names:
            return self.low + self.names.index(text)
        if text.isascii() and text.isdecimal() and self.low <= int(text) <= self.high:
            return int(text)
        raise InvalidCron(self.name, text, "is not in", self.allowed)


MINUTES = Field(name="minutes", low=0, high=59)
HOURS = Field(name="hours", low=0, high=23)
DAY_OF_MONTH = Field(name="day-of-month", low=1, high=31)
MONTH = Field(name="month", low=1, high=12, names=MONTH_NAMES)


def has_real_hours(text: str, hours: frozenset[int]) -> bool:
    """Whether the hours follow real time over a change of the offset: the field begins with `*`, or has all hours.

    Vixie's cron tells by the `*` (HR_STAR in its entry.c). Whoever writes all hours without it means every hour as well.
    """
    return text.startswith("*") or len(hours) == HOURS.high + 1


def backwards(field: Field, item: Item) -> InvalidCron:
    """The error for a range whose end lies before its beginning."""
    return InvalidCron(field.name, item.text, "is a range that runs backwards: write two ranges, of", field.allowed)
