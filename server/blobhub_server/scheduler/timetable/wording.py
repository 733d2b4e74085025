"""Says in words when a cron expression is due: `at 09:00 on the last weekday of every month, in 2026`.

The words are made of the sets, not of the text. So two expressions that mean the same read the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blobhub_server.scheduler.timetable import cron as sets
from blobhub_server.scheduler.timetable.cron import Cron, LastDay, LastWeekday, NearestWorkday, NthWeekday

_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_NTH = ("first", "second", "third", "fourth", "fifth")

_MAX_TIMES = 6
"""How many times of the day are listed; more are told as minutes of hours."""
_MIN_RUN, _MIN_STEPS = 3, 5
"""From how many numbers on a list is told as a range, or as steps."""


def describe(cron: Cron) -> str:
    """The expression in words, as the end of a sentence that begins "It is due". Never fails."""
    return " ".join(filter(None, [_times(cron), _days(cron)])) + _years(cron)


def _times(cron: Cron) -> str:
    minutes, hours = sorted(cron.minutes), sorted(cron.hours)
    if not cron.real_hours and len(minutes) * len(hours) <= _MAX_TIMES:
        return f"at {_join([_time(hour, minute) for hour in hours for minute in minutes])}"
    often = _often(minutes)
    if often is None:
        return f"at {_numbers(minutes, 'minute')} of {_hours(cron, hours)}"
    if cron.hours == sets.HOURS:
        return often
    if not cron.real_hours and _is_run(hours):
        return f"{often} from {_time(hours[0], 0)} to {_time(hours[-1], 59)}"
    return f"{often} of {_hours(cron, hours)}"


def _often(minutes: list[int]) -> str | None:
    """How often in an hour, if the minutes are evenly spread over it."""
    step, rest = divmod(60, len(minutes))
    if step == 1 and rest == 0:
        return "every minute"
    if len(minutes) == 1 or rest or minutes != list(range(minutes[0], 60, step)):
        return None
    return f"every {step} minutes" + (f" from minute {minutes[0]}" if minutes[0] else "")


def _hours(cron: Cron, hours: list[int]) -> str:
    if cron.hours == sets.HOURS:
        return "every hour"
    if cron.real_hours and len(hours) > 1 and hours == list(range(0, 24, hours[1])):
        return f"every {_ordinal(hours[1])} hour"
    told = _numbers(hours, "hour")
    told = told if told.startswith("every") else f"the {told}"
    return f"each of {told}" if cron.real_hours else told


def _days(cron: Cron) -> str:
    all_days, all_weekdays = cron.days_of_month == sets.DAYS, cron.days_of_week == sets.WEEKDAYS
    months = None if cron.months == sets.MONTHS else _some(sorted(cron.months), lambda month: _MONTHS[month - 1])
    if (all_days and all_weekdays) or (cron.either_day and (all_days or all_weekdays)):
        every_day = "" if cron.real_hours else "every day"
        return " ".join(filter(None, [every_day, _in(months)]))
    if all_days:
        return _by_week(cron.days_of_week, months)
    by_month = _by_month(cron.days_of_month, months)
    if all_weekdays:
        return by_month
    if cron.either_day:
        return f"{by_month} and {_by_week(cron.days_of_week, months)}"
    return f"{by_month}, if that is a {_alternatives(cron.days_of_week)}"


def _by_month(days: sets.DaysOfMonth, months: str | None) -> str:
    of_months = f"of {months or 'every month'}"
    match days:
        case LastDay(days_before=0):
            return f"on the last day {of_months}"
        case LastDay(days_before=before):
            return f"{before} day{'s' if before > 1 else ''} before the last day {of_months}"
        case NearestWorkday(day=day):
            which = "last weekday" if day is None else f"weekday nearest to the {_ordinal(day)}"
            return f"on the {which} {of_months}"
        case _:
            return f"on {_dates(sorted(days))} {of_months}"


def _by_week(days: sets.DaysOfWeek, months: str | None) -> str:
    of_months = f"of {months or 'every month'}"
    match days:
        case NthWeekday(weekday=weekday, nth=nth):
            return f"on the {_NTH[nth - 1]} {_WEEKDAYS[weekday]} {of_months}"
        case LastWeekday(weekday=weekday):
            return f"on the last {_WEEKDAYS[weekday]} {of_months}"
        case _:
            return f"{_weekdays(_from_monday(days))} {_in(months)}".rstrip()


def _weekdays(days: list[int]) -> str:
    if len(days) >= _MIN_RUN and _is_run(days):
        return f"from {_weekday(days[0])} to {_weekday(days[-1])}"
    return f"every {_join([_weekday(day) for day in days])}"


def _in(months: str | None) -> str:
    """The months as those in which something happens, or nothing for all."""
    if months is None:
        return ""
    return f"from {months}" if " to " in months and " and " not in months else f"in {months}"


def _alternatives(days: sets.DaysOfWeek) -> str:
    """The days of the week as those of which a day has to be one."""
    match days:
        case frozenset():
            return _join([_weekday(day) for day in _from_monday(days)], "or")
        case _:  # a crontab has no others
            return _by_week(days, None)


def _from_monday(days: frozenset[int]) -> list[int]:
    """The days of the week as numbers, of which Monday is the lowest."""
    return sorted((day - 1) % 7 for day in days)


def _weekday(number: int) -> str:
    return _WEEKDAYS[(number + 1) % 7]


def _dates(days: list[int]) -> str:
    step = _step(days)
    if step:
        return f"every {_ordinal(step)} day from the {_ordinal(days[0])} to the {_ordinal(days[-1])}"
    return f"the {_some(days, _ordinal)}"


def _years(cron: Cron) -> str:
    if cron.years == sets.YEARS:
        return ""
    years = sorted(cron.years)
    if len(years) >= _MIN_RUN and _is_run(years):
        return f", from {years[0]} to {years[-1]}"
    return f", in {_numbers(years, 'year').removeprefix('years ').removeprefix('year ')}"


def _numbers(numbers: list[int], noun: str) -> str:
    """Numbers of something: `minute 5`, `minutes 5 and 10 to 20`, `every 7th minute from 0 to 56`."""
    step = _step(numbers)
    if step:
        return f"every {_ordinal(step)} {noun} from {numbers[0]} to {numbers[-1]}"
    return f"{noun}{'s' if len(numbers) > 1 else ''} {_some(numbers, str)}"


def _step(numbers: list[int]) -> int | None:
    """By how much each number is larger than the one before it, if that is as much for all, and they are many."""
    step = numbers[1] - numbers[0] if len(numbers) >= _MIN_STEPS else 1
    return step if step > 1 and numbers == list(range(numbers[0], numbers[-1] + 1, step)) else None


def _some(numbers: list[int], name: Callable[[int], str]) -> str:
    """A list of numbers under their names, with ranges where three or more follow one another."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts: list[str] = []
    for run in runs:
        names = [name(number) for number in run]
        parts += [f"{names[0]} to {names[-1]}"] if len(run) >= _MIN_RUN else names
    return _join(parts)


def _join(parts: Sequence[str], word: str = "and") -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"


def _is_run(numbers: list[int]) -> bool:
    return numbers[-1] - numbers[0] == len(numbers) - 1


def _time(hour: int, minute: int) -> str:
    return f"{hour:02}:{minute:02}"


def _ordinal(number: int) -> str:
    ending = "th" if 10 < number % 100 < 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
