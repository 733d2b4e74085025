"""What a cron expression says, as sets. Both grammars are read into it, and one function evaluates it."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

FIRST_YEAR, LAST_YEAR = 1970, 2199
"""The years of AWS's grammar, and of ours: nothing is due before or after them."""

MINUTES = frozenset(range(60))
HOURS = frozenset(range(24))
DAYS = frozenset(range(1, 32))
MONTHS = frozenset(range(1, 13))
WEEKDAYS = frozenset(range(7))
"""The days of the week: 0 is Sunday, 6 is Saturday."""
YEARS = frozenset(range(FIRST_YEAR, LAST_YEAR + 1))

_SUNDAY, _SATURDAY = 0, 6


@dataclass(frozen=True, slots=True)
class LastDay:
    """The last day of the month, or a day that is `days_before` it: `L`, `L-3`."""

    days_before: int


@dataclass(frozen=True, slots=True)
class NearestWorkday:
    """The day from Monday to Friday that is nearest to a day, in the same month: `15W`. `day` is None for the last: `LW`."""

    day: int | None


@dataclass(frozen=True, slots=True)
class NthWeekday:
    """The first to fifth such day of the week in the month: `MON#2`."""

    weekday: int
    nth: int


@dataclass(frozen=True, slots=True)
class LastWeekday:
    """The last such day of the week in the month: `FRIL`."""

    weekday: int


DaysOfMonth = frozenset[int] | LastDay | NearestWorkday
DaysOfWeek = frozenset[int] | NthWeekday | LastWeekday


@dataclass(frozen=True)
class Cron:
    """The local times at which something is due: every minute whose parts are all in these sets.

    A day is in if both `days_of_month` and `days_of_week` have it; with `either_day`, if one of them has it.
    `real_hours` tells how the expression takes a change of the offset, see `evaluation.py`.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days_of_month: DaysOfMonth
    months: frozenset[int]
    days_of_week: DaysOfWeek
    years: frozenset[int]
    either_day: bool
    real_hours: bool

    @cached_property
    def sets(self) -> BitSets:
        """The same for the evaluation."""
        return BitSets(self)


class BitSets:
    """The sets of an expression as numbers: bit n is set where n is in the set."""

    def __init__(self, cron: Cron) -> None:
        self.minutes = bits(cron.minutes)
        self.hours = bits(cron.hours)
        self.months = bits(cron.months)
        self.years = bits(year - FIRST_YEAR for year in cron.years)
        """Bit 0 is `FIRST_YEAR`."""
        self._cron = cron
        self._days: dict[tuple[int, int], int] = {}

    def days(self, year: int, month: int) -> int:
        """The days of a month. There are 28 kinds of months: four lengths, and seven weekdays that they begin with."""
        kind = monthrange(year, month)
        days = self._days.get(kind)
        if days is None:
            days = self._days[kind] = _days(self._cron, *kind)
        return days


def bits(numbers: Iterable[int]) -> int:
    """The set of these numbers as one number."""
    together = 0
    for number in numbers:
        together |= 1 << number
    return together


def lowest(bit_set: int, least: int) -> int | None:
    """The lowest number of a set that is not below `least`."""
    rest = bit_set >> least << least
    return (rest & -rest).bit_length() - 1 if rest else None


def highest(bit_set: int, most: int) -> int | None:
    """The highest number of a set that is not above `most`."""
    rest = bit_set & ((1 << (most + 1)) - 1)
    return rest.bit_length() - 1 if rest else None


def _days(cron: Cron, first: int, length: int) -> int:
    """The days of a month that has `length` days and begins with the weekday `first`, as Python counts it: Monday is 0."""
    weekdays = [(first + day) % 7 for day in range(length + 1)]  # that of day n is the item n: Sunday is 0
    by_month = _by_month(cron.days_of_month, weekdays)
    by_week = _by_week(cron.days_of_week, weekdays)
    whole_month = (2 << length) - 2
    return (by_month | by_week if cron.either_day else by_month & by_week) & whole_month


def _by_month(days: DaysOfMonth, weekdays: list[int]) -> int:
    last = len(weekdays) - 1
    match days:
        case LastDay(days_before=before):
            return bits([last - before]) if before < last else 0
        case NearestWorkday(day=day):
            day = day or last
            return bits([_nearest_workday(day, weekdays)]) if day <= last else 0
        case _:
            return bits(days)


def _nearest_workday(day: int, weekdays: list[int]) -> int:
    """The nearest workday stays in the month: from a Saturday the 1st it is Monday the 3rd."""
    if weekdays[day] == _SATURDAY:
        return day - 1 if day > 1 else day + 2
    if weekdays[day] == _SUNDAY:
        return day + 1 if day + 1 < len(weekdays) else day - 2
    return day


def _by_week(days: DaysOfWeek, weekdays: list[int]) -> int:
    match days:
        case NthWeekday(weekday=weekday, nth=nth):
            return bits(_occurrences(weekday, weekdays)[nth - 1 : nth])
        case LastWeekday(weekday=weekday):
            return bits(_occurrences(weekday, weekdays)[-1:])
        case _:
            return bits(day for day, weekday in enumerate(weekdays) if weekday in days)


def _occurrences(weekday: int, weekdays: list[int]) -> list[int]:
    return [day for day in range(1, len(weekdays)) if weekdays[day] == weekday]
