"""The engine of each server sleeps until something is due, and wakes for what is created or changed on any server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path

import acme
import pytest
import schedules
from blobhub_server.scheduler.engine import engine as engine_module
from blobhub_server.scheduler.rules.firing import FiringKind
from databases import FreshPostgres
from firing import HOUR, Firer, SetClock, engines, utc
from schedules import DAILY, DRAFT, NIGHTLY, ONCE, create, get, house, update
from served import Api, Served, connected, served

LONG_AGO, DUE = utc("2001-01-01 00:00"), utc("2150-01-01 00:00")
NOW_TIME = {"invocation_time": "2150-01-01T00:00", "timezone": "UTC"}
NOW, LATER = ONCE | NOW_TIME, ONCE | {"invocation_time": "2160-01-01T00:00"}


@pytest.fixture(autouse=True)
def sleeping_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no engine look again because it has slept for long, or it would see without being woken."""
    monkeypatch.setattr(engine_module, "MAX_SLEEP_SECONDS", 3600.0)


@pytest.fixture
async def two(tmp_path: Path, fresh_postgres: FreshPostgres) -> AsyncIterator[tuple[Api, Firer]]:
    """Two servers on one database: a client of one that never fires, and the engine of the other, where it is DUE."""
    url = await fresh_postgres()

    async def opened(now: datetime) -> tuple[list[Firer], Served]:
        with engines(SetClock(now)) as found:
            return found, await stack.enter_async_context(served(tmp_path / "data", url))

    async with AsyncExitStack() as stack:
        (_,), server = await opened(LONG_AGO)
        api = await stack.enter_async_context(connected(server.address, server.admin_key))
        await house(api)
        (firer,), _ = await opened(DUE)
        yield api, firer


async def created(api: Api) -> None:
    await create(api, spec=NOW)


async def updated(api: Api) -> None:
    await create(api, spec=LATER)
    await update(api, **NOW_TIME)


async def enabled(api: Api) -> None:
    await create(api, spec=NOW, enabled=False)
    await schedules.enable(api, f"{DRAFT}/report")


async def resumed(api: Api) -> None:
    await create(api, spec=LATER)
    await schedules.pause(api, f"{DRAFT}/report")
    await update(api, **NOW_TIME)
    await schedules.resume(api, f"{DRAFT}/report")


async def moved(api: Api) -> None:
    """It is in a revision that becomes the default one."""
    await create(api, "other", LATER)
    await schedules.publish(api)
    await acme.branch(api, blob=NIGHTLY)
    await create(api, spec=NOW)
    await acme.update_blob(api, NIGHTLY, default_revision="draft")


@pytest.mark.parametrize("change", [created, updated, enabled, resumed, moved])
async def test_a_server_fires_what_was_changed_on_another_one(
    two: tuple[Api, Firer], change: Callable[[Api], Awaitable[None]]
) -> None:
    api, firer = two
    await change(api)
    (firing,) = await firer.fired(1)
    assert (firing.schedule_alias, firing.status) == ("report", "success")


async def test_a_schedule_with_jitter_fires_when_it_is_due_and_not_at_its_time(tmp_path: Path, database_url: str) -> None:
    with engines(SetClock(LONG_AGO)) as found:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            (firer,) = found
            await house(api)
            made = await create(api, spec=DAILY | {"jitter": {"seconds": 3600}})
            await create(api, "other")
            time, due = (each.ToDatetime(LONG_AGO.tzinfo) for each in (made.next_nominal_time, made.next_due_time))
            assert time < due < time + HOUR
            await firer.set(due - timedelta(microseconds=1))
            assert [firing.schedule_alias for firing in await firer.settled()] == ["other"]
            await firer.set(due)
            (_, firing) = await firer.settled()
            told = (firing.nominal_time, firing.due_time, firing.kind)
            assert told == (time, due, FiringKind.SCHEDULED)
            last = (await get(api, made.id)).last_nominal_time
            assert last.ToDatetime(LONG_AGO.tzinfo) == time


async def test_the_engine_sleeps_until_the_next_time_and_does_not_look_meanwhile(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    peek = engine_module.store.peek

    async def counted(*arguments: object) -> object:
        looks.append(arguments)
        return await peek(*arguments)

    monkeypatch.setattr(engine_module.store, "peek", counted)
    clock = SetClock(LONG_AGO)
    with engines(clock) as found:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            (firer,) = found
            await house(api)
            made = await create(api, spec=DAILY)
            due = made.next_due_time.ToDatetime(LONG_AGO.tzinfo)
            for late in (timedelta(minutes=30), timedelta(milliseconds=1)):
                clock.now = due - late
                assert await firer.engine._sleep_seconds(0) == late.total_seconds()
            clock.now = due - HOUR / 2
            await create(api, "another", spec=ONCE)
            await asyncio.sleep(0.5)
            before = len(looks)
            await asyncio.sleep(0.5)
            assert len(looks) == before
            await firer.set(due)
            await firer.fired(1)
