"""Timetables: when a cron expression is due in a time zone, and what it says in words.

    cron = parse_cron("0 9 ? * MON-FRI *")
    zone = find_zone("Europe/Berlin")
    next_after(cron, zone, instant)

`docs/schedules.md` is what users read about it. The package is pure: no clock, no randomness, no I/O but the rules of zones
in the package `tzdata`. Instants are aware `datetime`s, those that are returned in UTC; local times are `datetime`s without
an offset.
"""

from blobhub_server.scheduler.timetable.cron import Cron
from blobhub_server.scheduler.timetable.errors import InvalidCron, UnknownZone
from blobhub_server.scheduler.timetable.evaluation import between, last_until, next_after, preview
from blobhub_server.scheduler.timetable.expression import parse_cron
from blobhub_server.scheduler.timetable.local import Occurrence, occurrence, resolve_local
from blobhub_server.scheduler.timetable.wording import describe
from blobhub_server.scheduler.timetable.zones import TZDATA_VERSION, find_zone, zone_names

__all__ = [
    "TZDATA_VERSION",
    "Cron",
    "InvalidCron",
    "Occurrence",
    "UnknownZone",
    "between",
    "describe",
    "find_zone",
    "last_until",
    "next_after",
    "occurrence",
    "parse_cron",
    "preview",
    "resolve_local",
    "zone_names",
]
