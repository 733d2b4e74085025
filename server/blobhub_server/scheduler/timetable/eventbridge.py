"""Reads the six fields of AWS EventBridge, strictly: what its page does not have is refused, but for `L-n` and `LW`.

https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-cron-expressions.html has the table of fields and wildcards,
https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html the form `6L`.
"""

from __future__ import annotations

import re

from blobhub_server.scheduler.timetable import cron, fields
from blobhub_server.scheduler.timetable.cron import Cron, LastDay, LastWeekday, NearestWorkday, NthWeekday
from blobhub_server.scheduler.timetable.errors import InvalidCron
from blobhub_server.scheduler.timetable.fields import DAY_OF_MONTH, HOURS, MINUTES, MONTH, WEEKDAY_NAMES, Field

DAY_OF_WEEK = Field(name="day-of-week", low=1, high=7, names=WEEKDAY_NAMES, takes_steps=False)
YEAR = Field(name="year", low=cron.FIRST_YEAR, high=cron.LAST_YEAR)
FIELDS = (MINUTES, HOURS, DAY_OF_MONTH, MONTH, DAY_OF_WEEK, YEAR)

ANY = "?"
_LAST_DAY = re.compile(r"L(?:-([0-9]{1,2}))?")
_NEAREST = re.compile(r"(?:([0-9]{1,2})|L)W")
_NTH = re.compile(r"([0-9A-Z]{1,3})#([0-9]{1,2})")
_LAST_WEEKDAY = re.compile(r"([0-9]|[A-Z]{3})L")
_MAX_BEFORE_LAST = 30
"""`L-30` is the first day of a month of 31 days; further back there is none."""


def read(texts: list[str]) -> Cron:
    """Read the six fields."""
    minutes, hours, day_of_month, month, day_of_week, year = texts
    if (day_of_month == ANY) == (day_of_week == ANY):
        given = f"{day_of_month} with day-of-week {day_of_week}"
        raise InvalidCron(DAY_OF_MONTH.name, given, "is not allowed:", "one of the two is ?, and one is not")
    hour_set = _numbers(HOURS, hours)
    return Cron(
        minutes=_numbers(MINUTES, minutes),
        hours=hour_set,
        days_of_month=_days_of_month(day_of_month),
        months=_numbers(MONTH, month),
        days_of_week=_days_of_week(day_of_week),
        years=_numbers(YEAR, year),
        either_day=False,
        real_hours=fields.has_real_hours(hours, hour_set),
    )


def _numbers(field: Field, text: str) -> frozenset[int]:
    together: set[int] = set()
    for item in field.items(text):
        first = field.low if item.first is None else field.number(item.first)
        last = field.high if item.first is None else first if item.last is None else field.number(item.last)
        if last < first:
            raise fields.backwards(field, item)
        together.update(range(first, last + 1, int(item.step or 1)))
    return frozenset(together)


def _days_of_month(text: str) -> cron.DaysOfMonth:
    if text == ANY:
        return cron.DAYS
    if last := _LAST_DAY.fullmatch(text.upper()):
        before = int(last[1] or 0)
        if last[1] and not 1 <= before <= _MAX_BEFORE_LAST:
            raise InvalidCron(
                DAY_OF_MONTH.name, text, "counts back from the last day by what is not in", f"1-{_MAX_BEFORE_LAST}"
            )
        return LastDay(days_before=before)
    if nearest := _NEAREST.fullmatch(text.upper()):
        return NearestWorkday(day=DAY_OF_MONTH.number(nearest[1]) if nearest[1] else None)
    _refuse_in_list(DAY_OF_MONTH, text, "L", "W", ANY)
    return _numbers(DAY_OF_MONTH, text)


def _days_of_week(text: str) -> cron.DaysOfWeek:
    """AWS counts from Sunday as 1, sets count from Sunday as 0."""
    if text == ANY:
        return cron.WEEKDAYS
    if text.upper() == "L":
        return frozenset([DAY_OF_WEEK.high - 1])
    if last := _LAST_WEEKDAY.fullmatch(text.upper()):
        return LastWeekday(weekday=DAY_OF_WEEK.number(last[1]) - 1)
    if nth := _NTH.fullmatch(text.upper()):
        if not 1 <= int(nth[2]) <= 5:
            raise InvalidCron(DAY_OF_WEEK.name, text, f"has the number {nth[2]} after #, which is not in", "1-5")
        return NthWeekday(weekday=DAY_OF_WEEK.number(nth[1]) - 1, nth=int(nth[2]))
    _refuse_in_list(DAY_OF_WEEK, text, "#", ANY)
    return frozenset(day - 1 for day in _numbers(DAY_OF_WEEK, text))


def _refuse_in_list(field: Field, text: str, *signs: str) -> None:
    """Say of the signs that stand alone in a field that they do."""
    for sign in signs:
        if "," in text and sign in text.upper():
            raise InvalidCron(
                field.name,
                text,
                f"is a list with {sign}, which stands alone in its field;",
                "a list has numbers, names and ranges",
            )
