"""The clock jumps forward, while a server runs or while none does, over changes of the offset: the exact firings.

What is expected comes from a model of the policies over the times of the oracle. They share no code with the engine.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from blobhub_server.scheduler.rules.firing import Firing, FiringStatus
from cron_texts import FORTY
from firing import DAY, MINUTE, SetClock, engines, utc
from google.protobuf.duration_pb2 import Duration
from scale import scaled
from schedules import DAILY, TARGET, create, house
from served import connected, served
from timetable_oracle import Clock, Expression
from zone_file import read_zone

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "Antarctica/Troll",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
)
POLICIES = ("SKIP", "LAST", "ALL")
JUMPS = (timedelta(seconds=20), MINUTE, timedelta(minutes=50), timedelta(hours=3), timedelta(hours=7), DAY, 2 * DAY)
WINDOWS = (timedelta(minutes=2), timedelta(hours=1), timedelta(hours=5), 30 * DAY)
CAUGHT_UP, COUNTED = 100, 200
RUNS, SCHEDULES = scaled(20, least=2), scaled(40, least=10)


@dataclass(frozen=True)
class Jumper:
    """A schedule."""

    cron: str
    policy: str
    window: timedelta

    def spec(self, zone: str) -> dict[str, Any]:
        """It as it is sent; what it invokes is not there, so that nothing is executed."""
        window = Duration()
        window.FromTimedelta(self.window)
        return DAILY | {
            "cron_expression": self.cron,
            "timezone": zone,
            "catch_up": f"CATCH_UP_POLICY_{self.policy}",
            "catch_up_window": window,
            "invocation_target": TARGET | {"definition": "absent"},
        }

    def expected(self, times: Sequence[datetime], looks: Sequence[datetime], start: datetime) -> list[str]:
        """What is told when a clock is looked at now and then, of these times."""
        told: list[str] = []
        for begin, now in zip((start, *looks), looks, strict=False):
            pending = [time for time in times if begin < time <= now]
            fresh = [time for time in pending if now - time < MINUTE]
            late = pending[: len(pending) - len(fresh)]
            caught_up = {time for time in self._caught_up(late, fresh, now) if now - time <= self.window}
            missed = [time for time in late if time not in caught_up]
            if missed:
                told.append(f"{missed[-1]:%d %H:%M} MISSED {count_of(missed)}")
            told += [f"{time:%d %H:%M} caught_up" for time in sorted(caught_up)]
            told += [f"{time:%d %H:%M} scheduled" for time in fresh]
        return told

    def _caught_up(self, late: list[datetime], fresh: list[datetime], now: datetime) -> list[datetime]:
        """The late times that fire, however old they may be."""
        if self.policy == "ALL":
            before = [time for time in (*late, *fresh) if time < now]
            return [time for time in before[-CAUGHT_UP:] if time in late]
        return late[-1:] if self.policy == "LAST" and not fresh else []


def count_of(missed: list[datetime]) -> str:
    """How the message begins that tells of so many times."""
    return "the" if len(missed) == 1 else "more" if len(missed) > COUNTED else str(len(missed))


def told(firings: list[Firing]) -> list[str]:
    """What the firings say, a line each."""
    return [f"{each.nominal_time:%d %H:%M} {what(each)}" for each in firings]


def what(firing: Firing) -> str:
    if firing.status is FiringStatus.SKIPPED:
        return f"{firing.reason} {firing.message.split(' ')[0]}"
    assert (firing.status, firing.reason) == (FiringStatus.INVOCATION_ERROR, "NOT_FOUND")
    return firing.kind


def instant_of(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def change_of(zone: str, dice: random.Random) -> datetime:
    """One of the changes of a zone's offset."""
    changes = read_zone(zone).changes(int(utc("2027-01-01 00:00").timestamp()), int(utc("2037-01-01 00:00").timestamp()))
    return instant_of(dice.choice(list(changes)))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("run", range(RUNS))
async def test_whatever_the_clock_jumps_over_is_fired_as_the_policy_says_and_told_once(
    tmp_path: Path, database_url: str, run: int
) -> None:
    dice = random.Random(run)
    zone = dice.choice(ZONES)
    start = change_of(zone, dice) - timedelta(minutes=dice.randrange(1, 1440))
    jumps = [dice.choice(JUMPS) for _ in range(5)]
    looks = [start + sum(jumps[: n + 1], timedelta()) for n in range(len(jumps))]
    jumpers = [
        Jumper(cron=dice.choice(FORTY), policy=dice.choice(POLICIES), window=dice.choice(WINDOWS)) for _ in range(SCHEDULES)
    ]
    found = await fire(tmp_path, database_url, zone, jumpers, start, looks)
    clock = Clock(read_zone(zone), int(start.timestamp()) + 1, int(looks[-1].timestamp()) + 1)
    for number, jumper in enumerate(jumpers):
        times = [instant_of(at) for at in clock.due(Expression(jumper.cron))]
        own = [firing for firing in found if firing.schedule_alias == f"each-{number}"]
        assert told(own) == jumper.expected(times, looks, start), (zone, start, looks, jumper)


async def fire(
    tmp_path: Path, url: str, zone: str, jumpers: Sequence[Jumper], start: datetime, looks: Sequence[datetime]
) -> list[Firing]:
    """All firings of some schedules of a zone from a start on. The first jump comes while no server runs."""
    clock = SetClock(utc("2001-01-01 00:00"))
    with engines(clock) as found:
        async with served(tmp_path / "data", url) as server, connected(server.address, server.admin_key) as api:
            await house(api)
            for number, jumper in enumerate(jumpers):
                await create(api, f"each-{number}", jumper.spec(zone))
            await found[0].arm(start)
        clock.now = looks[0]
        async with served(tmp_path / "data", url):
            firer = found[-1]
            firings = await firer.settled()
            for now in looks[1:]:
                await firer.set(now)
                firings = await firer.settled()
            return firings
