"""The local times of a cron expression, in order, without regard to a time zone."""

from __future__ import annotations

from datetime import datetime

from blobhub_server.scheduler.timetable.cron import FIRST_YEAR, LAST_YEAR, BitSets, Cron, highest, lowest

Day = tuple[int, int, int]
Time = tuple[int, int]


def first_match(cron: Cron, start: datetime) -> datetime | None:
    """The first local time of an expression that is not before `start`, which is a whole minute."""
    sets = cron.sets
    day = _first_day(sets, (start.year, start.month, start.day))
    if day == (start.year, start.month, start.day):
        if time := _first_time(sets, start.hour, start.minute):
            return datetime(*day, *time)
        day = _first_day(sets, (start.year, start.month, start.day + 1))
    if day is None:
        return None
    time = _first_time(sets, 0, 0)
    return datetime(*day, *time) if time else None


def last_match(cron: Cron, end: datetime) -> datetime | None:
    """The last local time of an expression that is not after `end`."""
    sets = cron.sets
    day = _last_day(sets, (end.year, end.month, end.day))
    if day == (end.year, end.month, end.day):
        if time := _last_time(sets, end.hour, end.minute):
            return datetime(*day, *time)
        day = _last_day(sets, (end.year, end.month, end.day - 1))
    if day is None:
        return None
    time = _last_time(sets, 23, 59)
    return datetime(*day, *time) if time else None


def _first_time(sets: BitSets, hour: int, minute: int) -> Time | None:
    found = lowest(sets.hours, hour)
    if found == hour and (later := lowest(sets.minutes, minute)) is not None:
        return hour, later
    found = lowest(sets.hours, hour + 1) if found == hour else found
    first = lowest(sets.minutes, 0)
    return None if found is None or first is None else (found, first)


def _last_time(sets: BitSets, hour: int, minute: int) -> Time | None:
    found = highest(sets.hours, hour)
    if found == hour and (earlier := highest(sets.minutes, minute)) is not None:
        return hour, earlier
    found = highest(sets.hours, hour - 1) if found == hour else found
    last = highest(sets.minutes, 59)
    return None if found is None or last is None else (found, last)


def _first_day(sets: BitSets, start: Day) -> Day | None:
    """The first day that is not before `start`, whose day may lie one behind its month."""
    start_year, start_month, start_day = start
    year = lowest(sets.years, max(0, start_year - FIRST_YEAR))
    while year is not None:
        in_first_year = year + FIRST_YEAR == start_year
        month = lowest(sets.months, start_month if in_first_year else 1)
        while month is not None:
            least = start_day if in_first_year and month == start_month else 1
            day = lowest(sets.days(year + FIRST_YEAR, month), least)
            if day is not None:
                return year + FIRST_YEAR, month, day
            month = lowest(sets.months, month + 1)
        year = lowest(sets.years, year + 1)
    return None


def _last_day(sets: BitSets, end: Day) -> Day | None:
    """The last day that is not after `end`, whose day may be 0."""
    end_year, end_month, end_day = end
    year = highest(sets.years, min(LAST_YEAR, end_year) - FIRST_YEAR) if end_year >= FIRST_YEAR else None
    while year is not None:
        in_last_year = year + FIRST_YEAR == end_year
        month = highest(sets.months, end_month if in_last_year else 12)
        while month is not None:
            most = end_day if in_last_year and month == end_month else 31
            day = highest(sets.days(year + FIRST_YEAR, month), most)
            if day is not None:
                return year + FIRST_YEAR, month, day
            month = highest(sets.months, month - 1) if month > 1 else None
        year = highest(sets.years, year - 1) if year else None
    return None
