"""Reads the rules of a time zone out of its file (RFC 9636), for the tests: another reader than Python's `zoneinfo`."""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from calendar import monthrange
from dataclasses import dataclass
from datetime import date
from importlib.resources import files

LAST_YEAR = 2201
DAY = 86_400
EPOCH = date(1970, 1, 1).toordinal()

FOOTER = re.compile(
    r"(?:<[^>]+>|[A-Za-z]+)(?P<std>[-+:\d]+)"
    r"(?:(?:<[^>]+>|[A-Za-z]+)(?P<dst>[-+:\d]+)?,(?P<start>[^,/]+)(?:/(?P<start_time>[-+:\d]+))?"
    r",(?P<end>[^,/]+)(?:/(?P<end_time>[-+:\d]+))?)?"
)


@dataclass(frozen=True)
class Zone:
    """The changes of a zone's offset: at `instants[n]`, seconds since 1970, it becomes `offsets[n + 1]` seconds."""

    instants: tuple[int, ...]
    offsets: tuple[int, ...]

    def offset(self, instant: int) -> int:
        """Seconds that local time is ahead of UTC."""
        return self.offsets[bisect_right(self.instants, instant)]

    def changes(self, start: int, end: int) -> list[int]:
        """The instants from `start` to before `end` at which the offset becomes another one."""
        return [at for n, at in enumerate(self.instants) if start <= at < end and self.offsets[n] != self.offsets[n + 1]]

    def rule(self, start: int, end: int) -> tuple[object, ...]:
        """All that can be told apart of the zone between two instants."""
        return self.offset(start), *((at, self.offset(at)) for at in self.changes(start, end))


def read_zone(name: str) -> Zone:
    """The zone of the package `tzdata` under a name."""
    data = files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()
    _, after_first = block(data, 0, "i")
    (instants, kinds, offsets), end = block(data, after_first, "q")
    footer = data[end:].decode().strip("\n")
    # Before the first change the first kind of local time holds (RFC 9636, 3.2).
    together = [offsets[0], *(offsets[kind] for kind in kinds)]
    times = list(instants)
    for at, offset in footer_changes(footer):
        if not times or at > times[-1]:
            times.append(at)
            together.append(offset)
    return Zone(tuple(times), tuple(together))


def block(data: bytes, start: int, time: str) -> tuple[tuple[tuple[int, ...], bytes, list[int]], int]:
    """One of the two blocks of a file: instants, kinds and the offset of each kind; and where the block ends."""
    assert data[start : start + 4] == b"TZif"
    utc, std, leaps, count, kinds, characters = struct.unpack_from(">6l", data, start + 20)
    at = start + 44
    instants = struct.unpack_from(f">{count}{time}", data, at)
    size = struct.calcsize(f">{time}")
    at += count * size
    numbers = data[at : at + count]
    at += count
    offsets = [struct.unpack_from(">l", data, at + 6 * kind)[0] for kind in range(kinds)]
    return (instants, numbers, offsets), at + 6 * kinds + characters + leaps * (size + 4) + std + utc


def footer_changes(footer: str) -> list[tuple[int, int]]:
    """The changes that the rule at the end of a file makes, in all years: instants, and the offset from then on."""
    rule = FOOTER.fullmatch(footer)
    assert rule, footer
    std = -seconds(rule["std"])
    if not rule["start"]:
        return [(-(2**40), std)]
    dst = -seconds(rule["dst"]) if rule["dst"] else std + 3600
    changes = []
    for year in range(1970, LAST_YEAR):
        changes.append((day(rule["start"], year) * DAY + seconds(rule["start_time"] or "2") - std, dst))
        changes.append((day(rule["end"], year) * DAY + seconds(rule["end_time"] or "2") - dst, std))
    return sorted(changes)


def seconds(text: str) -> int:
    """A time of POSIX, `[-+]h[:mm[:ss]]`."""
    sign = -1 if text.startswith("-") else 1
    hours, minutes, rest = (*(int(part) for part in text.lstrip("+-").split(":")), 0, 0)[:3]
    return sign * (hours * 3600 + minutes * 60 + rest)


def day(text: str, year: int) -> int:
    """The day that a rule of POSIX has in a year, in days since 1970."""
    if text.startswith("M"):
        month, week, weekday = (int(part) for part in text[1:].split("."))
        first, length = monthrange(year, month)
        days = [number for number in range(1, length + 1) if (first + number) % 7 == weekday]
        return date(year, month, days[min(week, len(days)) - 1]).toordinal() - EPOCH
    if text.startswith("J"):  # February 29 is never counted
        number = int(text[1:])
        leap = monthrange(year, 2)[1] == 29 and number >= 60
        return date(year, 1, 1).toordinal() - EPOCH + number - 1 + leap
    return date(year, 1, 1).toordinal() - EPOCH + int(text)
