"""Time zones, from the package `tzdata` and never from the machine, so that every server reads the same rules."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

import tzdata

from blobhub_server.scheduler.timetable.errors import UnknownZone

TZDATA_VERSION: str = tzdata.IANA_VERSION
"""The version of the rules, as IANA names it: `2026f`."""

_MAX_NAME = 64
"""The longest name that others are compared with. The longest of IANA's has 30 characters."""


@cache
def zone_names() -> frozenset[str]:
    """The names of all zones, links included."""
    return frozenset(files("tzdata").joinpath("zones").read_text("utf-8").split())


def find_zone(name: str) -> ZoneInfo:
    """The zone of an IANA name, which is exact to the letter. Raises `UnknownZone`, with the nearest names."""
    if name not in zone_names():
        raise UnknownZone(name, _nearest(name[:_MAX_NAME]))
    return _read(name)


@cache
def _read(name: str) -> ZoneInfo:
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def _nearest(name: str) -> list[str]:
    """The names that are most like it, or that end with it: `berlin` is near `Europe/Berlin`."""
    wanted = name.strip().replace(" ", "_").lower()
    names = {known.lower(): known for known in sorted(zone_names())}
    ends = [known for lower, known in names.items() if wanted and lower.endswith(f"/{wanted}")]
    like = [names[lower] for lower in get_close_matches(wanted, names, n=3, cutoff=0.7)]
    return list(dict.fromkeys([*ends, *like]))[:3]
