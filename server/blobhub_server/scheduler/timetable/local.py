"""Local time and instants: when a clock in a zone shows a time, also around a change of its offset.

At a change, a clock skips times (a gap) or shows times twice (an overlap). `datetime` tells by `fold`: a time in an overlap
has two offsets, of which `fold=0` has the first; for a time in a gap `fold=0` has the offset before the gap (PEP 495).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """An instant as the clock in a zone shows it.

    `offset_changes` is true on days on which the offset from UTC changes: local midnight to local midnight.
    """

    instant: datetime
    local_time: datetime
    """Without an offset."""
    utc_offset: timedelta
    offset_changes: bool


def offsets(local_time: datetime, zone: ZoneInfo) -> tuple[timedelta, timedelta]:
    """The offsets that a local time has, before and after a change. They are one, but in a gap or an overlap."""
    before = local_time.replace(tzinfo=zone, fold=0).utcoffset()
    after = local_time.replace(tzinfo=zone, fold=1).utcoffset()
    assert before is not None
    assert after is not None
    return before, after


def resolve_local(local_time: datetime, zone: ZoneInfo) -> datetime:
    """The first instant (in UTC) at which the clock in the zone shows this time (without an offset) or a later one.

    A time that does not exist is resolved to the first instant after the gap, one that exists twice to its first.
    """
    before, after = offsets(local_time, zone)
    if before < after:
        return gap_end(local_time, zone)
    return (local_time - before).replace(tzinfo=UTC, fold=0)


def gap_end(local_time: datetime, zone: ZoneInfo) -> datetime:
    """The first instant after the gap in which a local time lies."""
    before, after = offsets(local_time, zone)
    local_time = local_time.replace(microsecond=0)  # gaps end at whole seconds, which are searched for
    early, late = ((local_time - offset).replace(tzinfo=UTC) for offset in (after, before))
    return first_instant(early, late, lambda instant: show(instant, zone) >= local_time)


def show(instant: datetime, zone: ZoneInfo) -> datetime:
    """What the clock in the zone shows, without an offset."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def first_instant(early: datetime, late: datetime, holds: Callable[[datetime], bool]) -> datetime:
    """The first instant, to the second, at which something holds that does not at `early`, and does at `late`."""
    apart = int((late - early) / _SECOND)
    below, reached = 0, apart
    while reached - below > 1:
        middle = (below + reached) // 2
        if holds(early + middle * _SECOND):
            reached = middle
        else:
            below = middle
    return early + reached * _SECOND


def occurrence(instant: datetime, zone: ZoneInfo) -> Occurrence:
    """An instant as the clock in the zone shows it."""
    local = instant.astimezone(zone)
    offset = local.utcoffset()
    assert offset is not None
    return Occurrence(
        instant=instant.astimezone(UTC),
        local_time=local.replace(tzinfo=None, fold=0),
        utc_offset=offset,
        offset_changes=_offset_at_end(local.date() - _DAY, zone) != _offset_at_end(local.date(), zone),
    )


def _offset_at_end(day: date, zone: ZoneInfo) -> timedelta | None:
    """The offset in the last second of a local day."""
    midnight = resolve_local(datetime.combine(day + _DAY, time()), zone)
    return (midnight - _SECOND).astimezone(zone).utcoffset()
