"""Times that passed while nothing fired: which are fired later, and what is told of the others. The clock is the test's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from blobhub_server.scheduler.engine.decision import MAX_CAUGHT_UP
from blobhub_server.scheduler.rules.firing import Firing, FiringStatus
from firing import Firer, SetClock, engines, utc
from google.protobuf.duration_pb2 import Duration
from schedules import DAILY, create, house
from served import connected, served

pytestmark = pytest.mark.either_database

LONG_AGO, START = utc("2001-01-01 00:00"), utc("2027-05-03 00:30")


@asynccontextmanager
async def firing(tmp_path: Path, url: str, start: datetime, **spec: Any) -> AsyncIterator[Firer]:
    """The engine of a server with one schedule, which was saved at a time, and where it is that time."""
    clock = SetClock(LONG_AGO)  # The call that creates the schedule goes by the machine's clock.
    with engines(clock) as found:
        async with served(tmp_path / "data", url) as server, connected(server.address, server.admin_key) as api:
            await house(api)
            await create(api, spec=DAILY | {"timezone": "UTC"} | spec)
            await found[0].arm(start)
            await found[0].set(start)
            yield found[0]


def told(firings: list[Firing]) -> list[str]:
    """What the firings say, a line each."""
    return [f"{each.nominal_time:%m-%d %H:%M} {_what(each)}" for each in firings]


def _what(firing: Firing) -> str:
    if firing.status is FiringStatus.SKIPPED:
        return f"{firing.reason} {firing.message.split(' ')[0]}"
    assert firing.status is FiringStatus.SUCCESS, firing.message
    return firing.kind


def window(span: timedelta) -> Duration:
    made = Duration()
    made.FromTimedelta(span)
    return made


HOURS = [f"05-03 {hour:02}:00" for hour in range(1, 24)]
"""The hours of the day that is missed, but for midnight, which is its end."""


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("policy", "late", "expected"),
    [
        ("SKIP", 30, ["05-04 00:00 MISSED 24"]),
        ("LAST", 30, ["05-03 23:00 MISSED 23", "05-04 00:00 caught_up"]),
        ("LAST", 59, ["05-03 23:00 MISSED 23", "05-04 00:00 caught_up"]),
        ("ALL", 30, ["05-03 23:00 MISSED 23", "05-04 00:00 caught_up"]),
        ("SKIP", 0, ["05-03 23:00 MISSED 23", "05-04 00:00 scheduled"]),
        ("LAST", 0, ["05-03 23:00 MISSED 23", "05-04 00:00 scheduled"]),
        ("ALL", 0, ["05-03 22:00 MISSED 22", "05-03 23:00 caught_up", "05-04 00:00 scheduled"]),
    ],
)
async def test_a_day_without_a_server_is_caught_up_as_the_policy_says(
    tmp_path: Path, database_url: str, policy: str, late: int, expected: list[str]
) -> None:
    """The window is an hour, as it is unless another is set."""
    async with firing(
        tmp_path, database_url, START, cron_expression="0 * * * *", catch_up=f"CATCH_UP_POLICY_{policy}"
    ) as firer:
        await firer.set(utc("2027-05-04 00:00") + timedelta(minutes=late))
        assert told(await firer.settled()) == expected
        assert (await firer.schedule()).next_nominal_time == utc("2027-05-04 01:00")


@pytest.mark.parametrize(
    ("policy", "span", "expected"),
    [
        ("LAST", timedelta(minutes=29), ["05-04 00:00 MISSED 24"]),
        (
            "ALL",
            timedelta(hours=3),
            ["05-03 21:00 MISSED 21", *[f"{each} caught_up" for each in HOURS[-2:]], "05-04 00:00 caught_up"],
        ),
        ("ALL", timedelta(days=1), [f"{each} caught_up" for each in (*HOURS, "05-04 00:00")]),
    ],
)
async def test_what_is_older_than_the_window_is_not_caught_up(
    tmp_path: Path, database_url: str, policy: str, span: timedelta, expected: list[str]
) -> None:
    spec = {"cron_expression": "0 * * * *", "catch_up": f"CATCH_UP_POLICY_{policy}", "catch_up_window": window(span)}
    async with firing(tmp_path, database_url, START, **spec) as firer:
        await firer.set(utc("2027-05-04 00:30"))
        assert told(await firer.settled()) == expected


@pytest.mark.both_databases
async def test_however_many_times_have_passed_so_many_are_caught_up_and_one_line_tells_of_the_others(
    tmp_path: Path, database_url: str
) -> None:
    spec = {
        "cron_expression": "* * * * *",
        "catch_up": "CATCH_UP_POLICY_ALL",
        "catch_up_window": window(timedelta(days=300)),
    }
    async with firing(tmp_path, database_url, START, **spec) as firer:
        await firer.set(utc("2027-12-24 18:00"))
        first, *others = told(await firer.settled())
        assert first == "12-24 16:19 MISSED more"
        assert others[0] == "12-24 16:20 caught_up"
        assert others[-2:] == ["12-24 17:59 caught_up", "12-24 18:00 scheduled"]
        assert len(others) == MAX_CAUGHT_UP + 1


@pytest.mark.parametrize(("hours", "expected"), [(1, "05-03 01:00 caught_up"), (2, "05-03 01:00 MISSED the")])
async def test_a_one_time_schedule_that_was_missed_is_fired_late_or_not_at_all(
    tmp_path: Path, database_url: str, hours: int, expected: str
) -> None:
    once = {"repeat": "SCHEDULE_REPEAT_ONE_TIME", "cron_expression": "", "invocation_time": "2127-05-03T01:00:00"}
    async with firing(tmp_path, database_url, utc("2127-05-03 00:30"), **once) as firer:
        await firer.set(utc("2127-05-03 01:00") + timedelta(hours=hours))
        assert told(await firer.settled()) == [expected]
        assert (await firer.schedule()).next_nominal_time is None


async def test_a_clock_that_is_set_back_fires_nothing_again_but_what_was_told_as_missed(
    tmp_path: Path, database_url: str
) -> None:
    async with firing(tmp_path, database_url, START, cron_expression="0 * * * *") as firer:
        await firer.set(utc("2027-05-03 02:00"))
        assert told(await firer.settled()) == ["05-03 01:00 MISSED the", "05-03 02:00 scheduled"]
        await firer.set(START)
        await firer.arm(START)
        assert (await firer.schedule()).next_nominal_time == utc("2027-05-03 01:00")
        for hour in (1, 2, 3):
            await firer.set(utc(f"2027-05-03 0{hour}:00"))
            await firer.settled()
        before = ["05-03 01:00 MISSED the", "05-03 02:00 scheduled"]
        assert told(await firer.firings()) == [*before, "05-03 01:00 scheduled", "05-03 03:00 scheduled"]


async def test_a_clock_that_is_set_back_tells_of_nothing_as_missed_again(tmp_path: Path, database_url: str) -> None:
    async with firing(tmp_path, database_url, START, cron_expression="0 * * * *", catch_up="CATCH_UP_POLICY_SKIP") as firer:
        for _ in range(2):
            await firer.set(utc("2027-05-03 02:30"))
            assert told(await firer.settled()) == ["05-03 02:00 MISSED 2"]
            await firer.set(START)
            await firer.arm(START)


async def test_a_day_of_which_an_hour_is_missing_or_twice_has_each_time_once(tmp_path: Path, database_url: str) -> None:
    spec = {"cron_expression": "30 2 * * *", "timezone": "Europe/Berlin", "catch_up": "CATCH_UP_POLICY_ALL"}
    spec["catch_up_window"] = window(timedelta(days=366))
    async with firing(tmp_path, database_url, utc("2027-03-26 12:00"), **spec) as firer:
        await firer.set(utc("2027-03-29 12:00"))
        expected = ["03-27 01:30 caught_up", "03-28 01:00 caught_up", "03-29 00:30 caught_up"]
        assert told(await firer.settled()) == expected
        await firer.arm(utc("2027-10-30 12:00"))
        await firer.set(utc("2027-11-01 12:00"))
        assert told((await firer.settled())[3:]) == ["10-31 00:30 caught_up", "11-01 01:30 caught_up"]


async def test_nothing_is_fired_after_the_end_date_however_late_it_is(tmp_path: Path, database_url: str) -> None:
    spec = {"cron_expression": "0 * * * *", "end_date": "2127-05-03T02:00:00Z", "catch_up": "CATCH_UP_POLICY_ALL"}
    spec["catch_up_window"] = window(timedelta(days=366))
    async with firing(tmp_path, database_url, utc("2127-05-03 00:30"), **spec) as firer:
        await firer.set(utc("2127-05-04 00:30"))
        assert told(await firer.settled()) == ["05-03 01:00 caught_up", "05-03 02:00 caught_up"]
        assert (await firer.schedule()).next_nominal_time is None
