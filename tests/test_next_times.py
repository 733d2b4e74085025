"""Next times that were reckoned on grounds that do not hold any more: older zone data, and a clock that was ahead."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import schedules
from blobhub.v1 import firing_pb2, schedule_pb2
from blobhub_server import app
from blobhub_server.clock import utc_now
from blobhub_server.db.engine import Transaction
from blobhub_server.scheduler import upkeep
from blobhub_server.scheduler.rules.schedule import Schedule
from blobhub_server.scheduler.rules.timing import due_time
from blobhub_server.scheduler.store import due as due_store
from blobhub_server.scheduler.timetable import TZDATA_VERSION
from databases import execute, select
from many_schedules import copy_schedule
from scale import scaled
from schedules import DAILY, DEFAULT, DRAFT, ONCE, create, get, house
from served import Api, connected, served
from waiting import until
from wall_clock import WallClock

MANY = scaled(20_000, least=200)
HOUR, YEAR = timedelta(hours=1), timedelta(days=365)
MINUTELY = DAILY | {"cron_expression": "* * * * *"}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    """The clock of the servers that are started; they look at it all the time."""
    made = WallClock()
    monkeypatch.setattr(app, "utc_now", made)
    monkeypatch.setattr(upkeep, "LOOK_SECONDS", 0.05)
    return made


async def number_of(url: str, condition: str) -> int:
    return (await select(url, f"SELECT count(*) FROM schedules WHERE {condition}"))[0][0]


@pytest.mark.timeout(3600)
async def test_very_many_are_reckoned_with_new_zone_data_a_few_at_a_time_and_the_soonest_first(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path, database_url) as server, connected(server.address, server.admin_key) as api:
        await house(api)
        made, key = await create(api, spec=DAILY | {"cron_expression": "0 9 1 1 ? 2150"}), server.admin_key
        await copy_schedule(database_url, made.id, MANY, first_due=made.next_due_time.ToMicroseconds() + 1, step=1)
    await execute(database_url, "UPDATE schedules SET tzdata = '2020a'")
    batches: list[Sequence[str]] = []
    serving: list[int] = []
    lock = due_store.lock

    async def locked(tx: Transaction, schedule_ids: Sequence[str]) -> list[Schedule]:
        batches.append(schedule_ids)
        return await lock(tx, schedule_ids)

    on_serving = upkeep.Upkeep.on_serving

    def served_now(self: upkeep.Upkeep) -> None:
        serving.append(len(batches))
        on_serving(self)

    order = await select(database_url, "SELECT id FROM schedules ORDER BY next_due_time, id")
    monkeypatch.setattr(due_store, "lock", locked)
    monkeypatch.setattr(upkeep.Upkeep, "on_serving", served_now)
    async with served(tmp_path, database_url) as server, connected(server.address, key) as api:
        while left := await number_of(database_url, "tzdata = '2020a'"):
            await until(lambda left=left: _less(database_url, left))
        assert await number_of(database_url, f"tzdata = '{TZDATA_VERSION}'") == MANY + 1
        assert (await get(api, made.id)).next_due_time == made.next_due_time
    assert await select(database_url, "SELECT count(DISTINCT next_due_time) FROM schedules") == [(1,)]
    assert serving == [0], "it was begun before calls were answered"
    assert max(map(len, batches)) <= upkeep.BATCH
    assert [id_ for batch in batches for id_ in batch] == [id_ for (id_,) in order]


async def _less(url: str, count: int) -> bool:
    return await number_of(url, "tzdata = '2020a'") < count


async def test_a_time_that_has_come_and_waits_for_its_jitter_is_not_lost_to_new_zone_data(
    tmp_path: Path, database_url: str
) -> None:
    async with served(tmp_path, database_url) as server, connected(server.address, server.admin_key) as api:
        await house(api)
        made, key = await create(api, spec=MINUTELY | {"jitter": HOUR}), server.admin_key
    minute = utc_now().replace(second=0, microsecond=0)
    passed = (minute - timedelta(minutes=number) for number in range(60))
    nominal = next(time for time in passed if due_time(made.id, time, HOUR) > minute + timedelta(minutes=20))
    columns = {"next_nominal_time": nominal, "next_due_time": due_time(made.id, nominal, HOUR)}
    values = ", ".join(f"{name} = {round(time.timestamp() * 1_000_000)}" for name, time in columns.items())
    await execute(database_url, f"UPDATE schedules SET tzdata = '2020a', {values}")
    async with served(tmp_path, database_url) as server, connected(server.address, key) as api:
        await until(lambda: _is_none(database_url, "tzdata = '2020a'"))
        assert (await get(api, made.id)).next_nominal_time.ToDatetime(UTC) == nominal


async def _is_none(url: str, condition: str) -> bool:
    return await number_of(url, condition) == 0


async def fired(api: Api, alias: str) -> list[firing_pb2.Firing]:
    request = firing_pb2.ListFiringsRequest(blob=schedules.NIGHTLY, schedule=alias, order_by="create_time")
    return list((await schedules.firings(api).ListFirings(request)).firings)


async def have_had_a_turn(api: Api, aliases: Sequence[str], after: datetime) -> bool:
    """Whether schedules have fired after a time, and have another time."""
    found = [await get(api, f"{DEFAULT}/{alias}") for alias in aliases]
    return all(each.last_nominal_time.ToDatetime(UTC) > after and each.HasField("next_due_time") for each in found)


def waits_for(schedule: schedule_pb2.Schedule) -> timedelta:
    return schedule.next_due_time.ToDatetime(UTC) - utc_now()


@pytest.mark.parametrize("restarted", [False, True], ids=["while it serves", "before a restart"])
async def test_after_a_clock_was_a_year_ahead_schedules_go_on_with_the_times_that_come(
    tmp_path: Path, database_url: str, clock: WallClock, restarted: bool
) -> None:
    aliases = ("minutely", "daily", "ending")
    end = (utc_now() + timedelta(days=30)).date().isoformat()
    async with served(tmp_path, database_url) as server, connected(server.address, server.admin_key) as api:
        await house(api)
        for alias, spec in zip(aliases, (MINUTELY, DAILY, DAILY | {"end_date": end}), strict=True):
            await create(api, alias, spec)
        key, begun = server.admin_key, utc_now()
        clock.ahead = YEAR
        await create(api, "bell", ONCE)
        await until(lambda: have_had_a_turn(api, aliases[:2], begun + YEAR - timedelta(days=2)))
        await until(lambda: _is_none(database_url, "alias = 'ending' AND next_due_time IS NOT NULL"))
        if not restarted:
            clock.ahead = timedelta()
            await right_again(api, aliases)
            await fires_on_time(api, clock)
    if restarted:
        clock.ahead = timedelta()
        async with served(tmp_path, database_url) as server, connected(server.address, key) as api:
            await right_again(api, aliases)
            await fires_on_time(api, clock)


async def right_again(api: Api, aliases: Sequence[str]) -> None:
    """Wait until schedules wait for the times that come."""

    async def is_right() -> bool:
        found = [await get(api, f"{DRAFT}/{alias}") for alias in aliases]
        return all(each.HasField("next_due_time") and waits_for(each) <= timedelta(days=2) for each in found)

    await until(is_right)


async def fires_on_time(api: Api, clock: WallClock) -> None:
    """A time that was told as missed while the clock was ahead fires when it comes, and none fires twice."""
    before = await fired(api, "minutely")
    clock.ahead = timedelta(minutes=2)
    await create(api, f"bell-{len(before)}", ONCE)

    async def has_fired() -> list[firing_pb2.Firing]:
        return [firing for firing in await fired(api, "minutely") if firing not in before and firing.execution_id]

    (first, *_) = await until(has_fired)
    assert abs(first.nominal_time.ToDatetime(UTC) - utc_now()) < timedelta(minutes=10)
    everything = await fired(api, "minutely")
    times = [(firing.kind, firing.nominal_time.ToMicroseconds()) for firing in everything]
    assert len(times) == len(set(times))
