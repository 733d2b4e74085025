"""When a cron expression is due, found slowly: by looking at a clock every minute. The yardstick of the timetable.

It shares no code with it. It has a reader of its own for the rules of zones (`zone_file.py`), reads an expression by asking
of each number whether it is in a field, and knows neither gaps nor overlaps:

* With real hours, an expression is due whenever the clock shows one of its times.
* With fixed hours, one of its times is due when the clock first shows it or a later time.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable, Iterator
from datetime import date
from math import gcd

from zone_file import DAY, EPOCH, Zone

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
FIRST_DAY, LAST_DAY = date(1970, 1, 1).toordinal(), date(2199, 12, 31).toordinal()

MINUTE = 60

LocalMinute = tuple[int, int]
"""A day, as Python's ordinal, and a minute of it."""


class Expression:
    """An expression, as a yes or no for each day and each minute of the day."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.fields = text.upper().split()
        minutes, hours = self.fields[:2]
        in_minutes = [minute for minute in range(60) if within(minute, minutes, 0, 59)]
        in_hours = [hour for hour in range(24) if within(hour, hours, 0, 23)]
        self.minutes_of_day = [MINUTE * hour + minute for hour in in_hours for minute in in_minutes]
        self.times = frozenset(self.minutes_of_day)
        self.real = hours.startswith("*") or len(in_hours) == 24
        self.days: dict[int, bool] = {}

    def has_day(self, ordinal: int) -> bool:
        """Whether it is due on a day, given as Python's ordinal."""
        if ordinal not in self.days:
            in_range = FIRST_DAY <= ordinal <= LAST_DAY
            self.days[ordinal] = in_range and (six_fields if len(self.fields) == 6 else five_fields)(
                self.fields, date.fromordinal(ordinal)
            )
        return self.days[ordinal]


def within(number: int, text: str, low: int, high: int, names: list[str] | None = None) -> bool:
    """Whether a number is in a list of numbers, ranges and steps."""
    return any(within_part(number, part, low, high, names or []) for part in text.split(","))


def within_part(number: int, part: str, low: int, high: int, names: list[str]) -> bool:
    """Whether a number is in one part of a list."""
    span, _, step = part.partition("/")
    first, _, last = span.partition("-")
    begin = low if span == "*" else read(first, low, names)
    end = read(last, low, names) if last else high if step or span == "*" else begin
    return begin <= number <= end and (number - begin) % int(step or 1) == 0


def read(text: str, low: int, names: list[str]) -> int:
    """A number, or the number of a name."""
    return low + names.index(text) if text in names else int(text)


def six_fields(fields: list[str], day: date) -> bool:
    """Whether the six fields of AWS have a day."""
    _, _, of_month, month, of_week, year = fields
    if not (within(day.month, month, 1, 12, MONTHS) and within(day.year, year, 1970, 2199)):
        return False
    return of_month_has(of_month, day) if of_week == "?" else of_week_has(of_week, day)


def of_month_has(text: str, day: date) -> bool:
    """Whether AWS's day-of-month has a day."""
    length = monthrange(day.year, day.month)[1]
    if text == "LW":
        return day.day == nearest(length, day)
    if text == "L":
        return day.day == length
    if text.startswith("L-"):
        return length - day.day == int(text[2:])
    if text.endswith("W"):
        return int(text[:-1]) <= length and day.day == nearest(int(text[:-1]), day)
    return within(day.day, text, 1, 31)


def nearest(number: int, month: date) -> int:
    """The day from Monday to Friday of a month that is nearest to one of its days; of two, the earlier one."""
    length = monthrange(month.year, month.month)[1]
    near = [number + by for by in (0, -1, 1, -2, 2) if 1 <= number + by <= length]
    return next(day for day in near if month.replace(day=day).weekday() < 5)


def of_week_has(text: str, day: date) -> bool:
    """Whether AWS's day-of-week, where Sunday is 1, has a day."""
    number = day.isoweekday() % 7 + 1
    length = monthrange(day.year, day.month)[1]
    if text == "L":
        return number == 7
    if text.endswith("L"):
        return number == read(text[:-1], 1, WEEKDAYS) and day.day > length - 7
    if "#" in text:
        weekday, _, nth = text.partition("#")
        return number == read(weekday, 1, WEEKDAYS) and (day.day - 1) // 7 + 1 == int(nth)
    return within(number, text, 1, 7, WEEKDAYS)


def five_fields(fields: list[str], day: date) -> bool:
    """Whether the five fields of a crontab have a day. Sunday is 0, and 7 as well, and the end of a range."""
    _, _, of_month, month, of_week = fields
    if not within(day.month, month, 1, 12, MONTHS):
        return False
    by_month = within(day.day, of_month, 1, 31)
    ends = [
        part.replace("-SUN", "-7").replace("-0", "-7") if not part.startswith(("SUN", "0")) else part
        for part in of_week.split(",")
    ]
    by_week = any(within(number, ",".join(ends), 0, 7, WEEKDAYS) for number in {day.isoweekday(), day.isoweekday() % 7})
    return by_month and by_week if of_month.startswith("*") or of_week.startswith("*") else by_month or by_week


class Clock:
    """A clock in a zone, looked at from `start` until `end` as often as it may show another whole minute."""

    def __init__(self, zone: Zone, start: int, end: int) -> None:
        step = gcd(MINUTE, *(zone.offset(at) for at in (start, *zone.changes(start - DAY, end))))
        latest = start - DAY + zone.offset(start - DAY)
        self.looks: list[tuple[int, list[LocalMinute], list[LocalMinute]]] = []
        """The instant of each look, the whole minute that the clock shows, and those it has reached for the first time since
        the look before."""
        for instant in range((start - DAY) // MINUTE * MINUTE, end, step):
            shown = instant + zone.offset(instant)
            if instant >= start:
                reached = range(latest - latest % MINUTE + MINUTE, shown + 1, MINUTE)
                self.looks.append((instant, local_minutes([shown]), local_minutes(reached)))
            latest = max(latest, shown)

    def due(self, expression: Expression) -> Iterator[int]:
        """The instants at which an expression is due, from `start` to before `end`."""
        for instant, shown, reached in self.looks:
            for day, minute in shown if expression.real else reached:
                if minute in expression.times and expression.has_day(day):
                    yield instant
                    break


def local_minutes(times: Iterable[int]) -> list[LocalMinute]:
    """Local times in seconds as days and minutes; those that are no whole minutes are left out."""
    return [(time // DAY + EPOCH, time % DAY // MINUTE) for time in times if time % MINUTE == 0]


def due_in_utc(expression: Expression, start: int, end: int) -> Iterator[int]:
    """The instants at which an expression is due in UTC: every minute of every day that it has."""
    for day in range(start // DAY, end // DAY + 1):
        if expression.has_day(day + EPOCH):
            for minute in expression.minutes_of_day:
                if start <= day * DAY + minute * MINUTE < end:
                    yield day * DAY + minute * MINUTE
