"""When a cron expression is due in a time zone.

An expression says local times. Where the offset from UTC changes, there are two ways to take them:

* **Fixed** hours (`0 9 * * ? *`): each local time is due once, at the first instant at which the clock shows it or a later
  one. A time that the clock skips is due at the first instant after the gap; one that it shows twice, the first time.
* **Real** hours (the hour field begins with `*`, as `*/2` does, or has all 24 hours): due whenever the clock shows such a
  time. So `0 * * * ? *` is due every hour of real time: nothing for an hour that is skipped, twice for one that is repeated.

The work of each step is bounded: it looks at the months of the expression's years at most once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from blobhub_server.scheduler.timetable.cron import FIRST_YEAR, LAST_YEAR, Cron
from blobhub_server.scheduler.timetable.local import (
    Occurrence,
    first_instant,
    gap_end,
    occurrence,
    offsets,
    resolve_local,
    show,
)
from blobhub_server.scheduler.timetable.matching import first_match, last_match

_SECOND = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)
_EARLIEST = datetime(FIRST_YEAR - 1, 12, 30, tzinfo=UTC)
"""Before every first minute of the first year, in any zone."""
_LATEST = datetime(LAST_YEAR + 1, 1, 3, tzinfo=UTC)


def next_after(cron: Cron, zone: ZoneInfo, instant: datetime) -> datetime | None:
    """The first time, in UTC, that is due after an instant; None if nothing is due any more."""
    if instant >= _LATEST:
        return None
    instant = max(instant, _EARLIEST).astimezone(UTC).replace(microsecond=0)
    return _next_real(cron, zone, instant) if cron.real_hours else _next_fixed(cron, zone, instant)


def last_until(cron: Cron, zone: ZoneInfo, instant: datetime) -> datetime | None:
    """The last time, in UTC, that is due at an instant or before it; None if nothing was due until then."""
    if instant <= _EARLIEST:
        return None
    instant = min(instant, _LATEST).astimezone(UTC).replace(microsecond=0)
    return _last_real(cron, zone, instant) if cron.real_hours else _last_fixed(cron, zone, instant)


def between(cron: Cron, zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """The times, in UTC, that are due after `start` and not after `end`, in order. Each is computed when it is asked for."""
    due = next_after(cron, zone, start)
    while due is not None and due <= end:
        yield due
        due = next_after(cron, zone, due)


def preview(cron: Cron, zone: ZoneInfo, instant: datetime, count: int) -> list[Occurrence]:
    """The next `count` times that are due after an instant, or as many as there are."""
    occurrences: list[Occurrence] = []
    due = next_after(cron, zone, instant)
    while due is not None and len(occurrences) < count:
        occurrences.append(occurrence(due, zone))
        due = next_after(cron, zone, due)
    return occurrences


def _next_fixed(cron: Cron, zone: ZoneInfo, instant: datetime) -> datetime | None:
    # Instants grow with the local times that are resolved to them. In the second pass of an overlap, the rest of what the
    # clock shows there was due in the first pass, and is stepped over: that is at most as many minutes as the overlap has.
    local_time = first_match(cron, _next_minute(show(instant, zone)))
    while local_time is not None:
        due = resolve_local(local_time, zone)
        if due > instant:
            return due
        local_time = first_match(cron, local_time + _MINUTE)
    return None


def _next_real(cron: Cron, zone: ZoneInfo, instant: datetime) -> datetime | None:
    ahead = _first_shown(cron, zone, instant)
    change = _repeat_ahead(zone, instant)
    if change is None:
        return ahead
    # The clock is in the first pass of an overlap: it will go back, and may show a time that lies behind it now.
    again = first_match(cron, _next_minute(show(change, zone) - _SECOND))
    if again is None or again > show(instant, zone):
        return ahead
    due = (again - offsets(again, zone)[1]).replace(tzinfo=UTC)
    return due if ahead is None else min(ahead, due)


def _first_shown(cron: Cron, zone: ZoneInfo, instant: datetime) -> datetime | None:
    """When the clock first shows, after an instant, the earliest local time that is later than what it shows now."""
    local_time = first_match(cron, _next_minute(show(instant, zone)))
    while local_time is not None:
        before, after = offsets(local_time, zone)
        if before >= after:
            first, second = ((local_time - offset).replace(tzinfo=UTC) for offset in (before, after))
            return first if first > instant else second
        gap = show(gap_end(local_time, zone), zone)
        local_time = first_match(cron, _next_minute(gap - _SECOND))
    return None


def _repeat_ahead(zone: ZoneInfo, instant: datetime) -> datetime | None:
    """The instant at which the clock will go back, if it shows a time now that it will then show again."""
    local = instant.astimezone(zone)
    before, after = offsets(local.replace(tzinfo=None), zone)
    if before <= after or local.fold:
        return None
    return first_instant(instant, instant + (before - after), lambda later: later.astimezone(zone).utcoffset() == after)


def _last_fixed(cron: Cron, zone: ZoneInfo, instant: datetime) -> datetime | None:
    change = _repeat_behind(zone, instant)
    # In the second pass of an overlap, all of what the clock shows there was due in the first pass.
    reached = show(instant, zone) if change is None else show(change - _SECOND, zone)
    local_time = last_match(cron, reached)
    return None if local_time is None else resolve_local(local_time, zone)


def _last_real(cron: Cron, zone: ZoneInfo, instant: datetime) -> datetime | None:
    behind = _last_shown(cron, zone, instant)
    change = _repeat_behind(zone, instant)
    if change is None:
        return behind
    # The clock is in the second pass of an overlap: in the first, it has shown times that now lie ahead of it.
    before = last_match(cron, show(change - _SECOND, zone))
    if before is None or before <= show(instant, zone):
        return behind
    due = (before - offsets(before, zone)[0]).replace(tzinfo=UTC)
    return due if behind is None else max(behind, due)


def _last_shown(cron: Cron, zone: ZoneInfo, instant: datetime) -> datetime | None:
    """When the clock last showed, until an instant, the latest local time that is not later than what it shows now."""
    local_time = last_match(cron, show(instant, zone))
    while local_time is not None:
        before, after = offsets(local_time, zone)
        if before >= after:
            first, second = ((local_time - offset).replace(tzinfo=UTC) for offset in (before, after))
            return second if second <= instant else first
        local_time = last_match(cron, show(gap_end(local_time, zone) - _SECOND, zone))
    return None


def _repeat_behind(zone: ZoneInfo, instant: datetime) -> datetime | None:
    """The instant at which the clock went back, if it shows a time now that it showed before."""
    local = instant.astimezone(zone)
    if not local.fold:
        return None
    before, after = offsets(local.replace(tzinfo=None), zone)
    return first_instant(instant - (before - after), instant, lambda later: later.astimezone(zone).utcoffset() == after)


def _next_minute(local_time: datetime) -> datetime:
    """The first whole minute after a local time."""
    return local_time.replace(second=0, microsecond=0) + _MINUTE
