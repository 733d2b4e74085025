"""Reads the five fields of a crontab, as crontab(5) has them, by `croniter`.

croniter reads more than a crontab has: seconds, `L`, `W`, `#`, `?`, random and hashed values. It takes ranges that run
backwards, and `5-5` for the whole field. All of that is refused or put right here, before croniter sees it.
"""

from __future__ import annotations

from croniter import CroniterError, croniter

from blobhub_server.scheduler.timetable import cron, fields
from blobhub_server.scheduler.timetable.cron import Cron
from blobhub_server.scheduler.timetable.errors import InvalidCron
from blobhub_server.scheduler.timetable.fields import DAY_OF_MONTH, HOURS, MINUTES, MONTH, WEEKDAY_NAMES, Field, Item

DAY_OF_WEEK = Field(name="day-of-week", low=0, high=7, names=WEEKDAY_NAMES)
FIELDS = (MINUTES, HOURS, DAY_OF_MONTH, MONTH, DAY_OF_WEEK)
SETS = (cron.MINUTES, cron.HOURS, cron.DAYS, cron.MONTHS, cron.WEEKDAYS)

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


def read(texts: list[str]) -> Cron:
    """Read the five fields."""
    sets = [_numbers(position, text) for position, text in enumerate(texts)]
    minutes, hours, days_of_month, months, days_of_week = sets
    _, hours_text, day_of_month, _, day_of_week = texts
    return Cron(
        minutes=minutes,
        hours=hours,
        days_of_month=days_of_month,
        months=months,
        days_of_week=days_of_week,
        years=cron.YEARS,
        # crontab(5): "If both fields are restricted (i.e., don't start with *), the command will be run when either field
        # matches the current time."
        either_day=not day_of_month.startswith("*") and not day_of_week.startswith("*"),
        real_hours=fields.has_real_hours(hours_text, hours),
    )


def _numbers(position: int, text: str) -> frozenset[int]:
    together: set[int] = set()
    for item in FIELDS[position].items(text):
        together |= _expanded(position, _plain(position, item))
    return frozenset(together)


def _plain(position: int, item: Item) -> str:
    """The item as croniter understands it in the sense of a crontab."""
    if item.first is None or item.last is None:
        return item.text
    (first,), (last,) = _expanded(position, item.first), _expanded(position, item.last)
    in_week = FIELDS[position] is DAY_OF_WEEK
    if first == last and not (in_week and _is_whole_week(item.first, item.last)):
        return item.first
    if first > last and not (in_week and last == 0):  # a range may end with Sunday
        raise fields.backwards(FIELDS[position], item)
    return f"{item.first}-{item.last}/{item.step or 1}"


def _is_whole_week(first: str, last: str) -> bool:
    """Whether a range goes from one Sunday to the next: `0-7`, `SUN-7`."""
    return first.lstrip("0") != last.lstrip("0") == "7"


def _expanded(position: int, text: str) -> frozenset[int]:
    """The numbers of one item: croniter reads it between fields that say nothing."""
    around = ["*"] * len(FIELDS)
    around[position] = text
    try:
        values = croniter.expand(" ".join(around))[0][position]
    except CroniterError:
        raise InvalidCron(FIELDS[position].name, text, "is not in", FIELDS[position].allowed) from None
    return SETS[position] if "*" in values else frozenset(value for value in values if isinstance(value, int))
