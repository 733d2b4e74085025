"""Decides what becomes of the times of a schedule that have come. It is pure.

A time is on time within a minute of when it is due, jitter included. What is later has passed while nothing fired: no server
ran, the clock was put forward, or what runs is so far behind. The catch-up policy says what becomes of those times. They are
taken one after the other, so a schedule's firings are never out of order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from blobhub_server.scheduler.rules.document import CatchUp, ScheduleDocument
from blobhub_server.scheduler.rules.firing import FiringKind
from blobhub_server.scheduler.rules.timing import Timing, due_time

ON_TIME = timedelta(minutes=1)
"""How late a time may be and still count as on time."""
MAX_CAUGHT_UP = 100
"""How many times are caught up at most, the newest."""
MAX_COUNTED = 200
"""Up to how many times that are passed over are counted: to find each takes a while."""

_SMALLEST = timedelta(microseconds=1)
_RESOLUTION = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Fire:
    """A time fires."""

    nominal_time: datetime
    kind: FiringKind


@dataclass(frozen=True, slots=True)
class PassOver:
    """Times are not fired: `count` of them, from `first` to `last`; more than MAX_COUNTED are not counted further."""

    first: datetime
    last: datetime
    count: int


def decide(
    schedule_id: str, document: ScheduleDocument, timing: Timing, *, nominal_time: datetime, due: datetime, now: datetime
) -> Fire | PassOver:
    """What becomes of a schedule's next time, which is due, and of those after it that are passed over with it."""
    if now - due < ON_TIME:
        return Fire(nominal_time=nominal_time, kind=FiringKind.SCHEDULED)
    times = _Times(schedule_id=schedule_id, document=document, timing=timing, nominal_time=nominal_time)
    resume = _resume(times, now)
    if resume is not None and resume <= nominal_time:
        return Fire(nominal_time=nominal_time, kind=FiringKind.CAUGHT_UP)
    last = times.last_until(now if resume is None else resume - _SMALLEST)
    counted = islice(timing.between(nominal_time, last), MAX_COUNTED)
    return PassOver(first=nominal_time, last=last, count=1 + sum(1 for _ in counted))


@dataclass(frozen=True, slots=True)
class _Times:
    """The times of a schedule from its next one on, and when each is due.

    The next one counts also where the document has it no more: an update came when it was due already.
    """

    schedule_id: str
    document: ScheduleDocument
    timing: Timing
    nominal_time: datetime

    def due(self, nominal_time: datetime) -> datetime:
        """When a time is due."""
        return due_time(self.schedule_id, nominal_time, self.document.jitter)

    def last_until(self, instant: datetime) -> datetime:
        """The last time until an instant, or the next one of the schedule, where that is later."""
        found = self.timing.last_until(instant)
        return self.nominal_time if found is None else max(found, self.nominal_time)

    def first_due(self, instant: datetime) -> datetime | None:
        """The first time that is due at an instant or later; its own time may be before that, by the jitter."""
        if self.due(self.nominal_time) >= instant:
            return self.nominal_time
        begin = max(self.nominal_time, instant - (self.document.jitter or timedelta()) - _SMALLEST)
        found = self.timing.next_after(begin)
        while found is not None and self.due(found) < instant:
            found = self.timing.next_after(found)
        return found


def _resume(times: _Times, now: datetime) -> datetime | None:
    """The first time, late or not, that is not passed over; None when all are."""
    on_time = times.first_due(now - ON_TIME + _SMALLEST)
    match times.document.catch_up_policy:
        case CatchUp.SKIP:
            return on_time
        case CatchUp.LAST:
            return _last(times, on_time, now)
        case CatchUp.ALL:
            begin = times.first_due(now - times.document.window)
            return None if begin is None else _newest(times.timing, begin, now)


def _last(times: _Times, on_time: datetime | None, now: datetime) -> datetime | None:
    """The last time that has come, if it may be late; else the first that is on time, now or in the future."""
    if on_time is not None and times.due(on_time) <= now:
        return on_time
    late = times.last_until(now if on_time is None else on_time - _SMALLEST)
    return late if times.due(late) >= now - times.document.window else on_time


def _newest(timing: Timing, begin: datetime, now: datetime) -> datetime:
    """The first of the newest times from `begin` on, of which there are not too many."""
    if now - begin < MAX_CAUGHT_UP * _RESOLUTION:
        return begin
    oldest = now
    for _ in range(MAX_CAUGHT_UP):
        found = timing.last_until(oldest - _SMALLEST)
        if found is None or found <= begin:
            return begin
        oldest = found
    return oldest
