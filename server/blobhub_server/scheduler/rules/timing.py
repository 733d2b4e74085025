"""When a schedule is due: its one time or its cron expression, in its zone, within its bounds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypeVar
from zoneinfo import ZoneInfo

from blobhub_server.errors import Violation
from blobhub_server.scheduler import timetable
from blobhub_server.scheduler.errors import InvalidSchedule
from blobhub_server.scheduler.rules.document import Repeat, ScheduleDocument
from blobhub_server.scheduler.timetable import Cron, InvalidCron, Occurrence, UnknownZone

Part = TypeVar("Part")

FIRST_YEAR, LAST_YEAR = 1970, 2199
"""The years that cron expressions have."""

_LOCAL_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?", re.ASCII)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)?)?", re.ASCII)
_SMALLEST = timedelta(microseconds=1)

_parse_cron = lru_cache(maxsize=4096)(timetable.parse_cron)
"""Cron expressions that were read: a firing needs the times of its schedule again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The times of a schedule: `instant`, or those of `cron`, from `start` to `end`, both included."""

    zone: ZoneInfo
    cron: Cron | None
    instant: datetime | None
    start: datetime | None
    end: datetime | None

    @classmethod
    def read(cls, document: ScheduleDocument) -> Timing:
        """The times that a document says. Raises InvalidSchedule with all that is wrong with them."""
        timing, violations = read_timing(document)
        if timing is None:
            raise InvalidSchedule(violations)
        return timing

    def next_after(self, instant: datetime) -> datetime | None:
        """The first time after an instant; None when there is none."""
        if self.start is not None:
            instant = max(instant, self.start - _SMALLEST)
        if self.cron is not None:
            due = timetable.next_after(self.cron, self.zone, instant)
        else:
            due = self.instant if self.instant is not None and self.instant > instant else None
        return due if due is not None and (self.end is None or due <= self.end) else None

    def last_until(self, instant: datetime) -> datetime | None:
        """The last time until an instant, which is among these; None when there is none."""
        if self.end is not None:
            instant = min(instant, self.end)
        if self.cron is not None:
            due = timetable.last_until(self.cron, self.zone, instant)
        else:
            due = self.instant if self.instant is not None and self.instant <= instant else None
        return due if due is not None and (self.start is None or due >= self.start) else None

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """The times after `start` and not after `end`, in order. Each is computed when it is asked for."""
        due = self.next_after(start)
        while due is not None and due <= end:
            yield due
            due = self.next_after(due)

    def occurrence(self, instant: datetime) -> Occurrence:
        """What the clock of the schedule's zone shows at an instant."""
        return timetable.occurrence(instant, self.zone)

    def describe(self) -> str:
        """When it is due, in words."""
        if self.cron is not None:
            return timetable.describe(self.cron)
        return "once"


def due_time(schedule_id: str, nominal_time: datetime, jitter: timedelta | None) -> datetime:
    """When a time is due with its jitter, which is always the same for a time of a schedule."""
    if not jitter:
        return nominal_time
    key = f"{schedule_id} {nominal_time.isoformat()}".encode()
    part = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / (1 << 64)
    return nominal_time + jitter * part


def read_timing(document: ScheduleDocument) -> tuple[Timing | None, list[Violation]]:
    """The times that a document says, or all that is wrong with them."""
    found = _Reading(violations=_misfits(document))
    zone = found.part("timezone", document.timezone, _zone)
    start = found.part("start_date", document.start_date, _instant) if document.start_date else None
    end = found.part("end_date", document.end_date, _instant) if document.end_date else None
    cron, local = None, None
    if document.repeat is Repeat.RECURRING_CRON and document.cron_expression:
        cron = found.part("cron_expression", document.cron_expression, _parse_cron)
    if document.repeat is Repeat.ONE_TIME and document.invocation_time:
        local = found.part("invocation_time", document.invocation_time, _local_time)
    if start is not None and end is not None and end < start:
        found.violations.append(Violation("spec.end_date", "is before start_date"))
    if found.violations or zone is None:
        return None, found.violations
    instant = timetable.resolve_local(local, zone) if local is not None else None
    return Timing(zone=zone, cron=cron, instant=instant, start=start, end=end), []


def _misfits(document: ScheduleDocument) -> list[Violation]:
    """The times that are missing, or do not go with `repeat`."""
    if document.repeat is None:
        return [Violation("spec.repeat", "is required: ONE_TIME or RECURRING_CRON")]
    times = {Repeat.ONE_TIME: "invocation_time", Repeat.RECURRING_CRON: "cron_expression"}
    found = []
    for repeat, name in times.items():
        if repeat is document.repeat and not getattr(document, name):
            found.append(Violation(f"spec.{name}", f"is required where repeat is {repeat.name}"))
        if repeat is not document.repeat and getattr(document, name):
            found.append(Violation(f"spec.{name}", f"is for repeat {repeat.name}, and this is {document.repeat.name}"))
    return found


@dataclass(frozen=True, slots=True)
class _Reading:
    """Reads texts, and notes those that cannot be read."""

    violations: list[Violation]

    def part(self, name: str, text: str, read: Callable[[str], Part]) -> Part | None:
        """What a field of the spec says; None for what cannot be read."""
        try:
            return read(text)
        except (InvalidCron, UnknownZone) as error:
            message = error.message
        except ValueError as error:
            message = str(error)
        self.violations.append(Violation(f"spec.{name}", message))
        return None


def _zone(name: str) -> ZoneInfo:
    if not name:
        raise ValueError("is required: an IANA name such as Europe/Berlin, or UTC")
    return timetable.find_zone(name)


def _local_time(text: str) -> datetime:
    if not _LOCAL_TIME.fullmatch(text):
        raise ValueError("must be a local time without offset, such as 2027-03-28T02:30:00; the zone is `timezone`")
    return _calendar(text)


def _instant(text: str) -> datetime:
    if not _INSTANT.fullmatch(text):
        raise ValueError("must be a time such as 2027-03-28T02:30:00Z, with Z or an offset, or a date")
    time = _calendar(text)
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).astimezone(UTC)


def _calendar(text: str) -> datetime:
    """A time in ISO 8601 form. Raises ValueError for a day or hour that there is not."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"is no time: {error}") from None
    if not FIRST_YEAR <= time.year <= LAST_YEAR:
        raise ValueError(f"must be in the years {FIRST_YEAR} to {LAST_YEAR}")
    return time
