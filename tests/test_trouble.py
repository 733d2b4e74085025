"""Trouble with the storage: units that wait for it, and what is told of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import structlog
from blobhub_server.db import trouble as module
from blobhub_server.db.engine import Database
from blobhub_server.db.group import GroupCommitter
from blobhub_server.db.opening import open_database
from blobhub_server.db.trouble import MAX_RETRY_SECONDS, MIN_RETRY_SECONDS, Trouble, retry_seconds
from blobhub_server.errors import StorageFull, StorageUnavailable
from waiting import until, within_deadline


@pytest.fixture
async def db(database_url: str):
    opened = await open_database(database_url)
    yield opened
    await opened.close()


class Storage:
    """Takes units, unless it is away."""

    def __init__(self) -> None:
        self.away = True
        self.tries = 0
        self.taken: list[int] = []

    async def apply(self, _tx, units):
        self.tries += 1
        if self.away:
            raise StorageFull
        self.taken += units
        return units


def committer(db: Database, storage: Storage) -> GroupCommitter[int, int]:
    """Even units are kept."""
    return GroupCommitter(db, storage.apply, kept=lambda unit: unit % 2 == 0)


async def test_units_that_are_kept_wait_for_the_storage_and_keep_their_order_and_others_are_refused(db):
    storage = Storage()
    group = committer(db, storage)
    waiting = [asyncio.create_task(group.submit(unit)) for unit in range(6)]
    await until(lambda: storage.tries >= 2)
    assert [task.done() for task in waiting] == [False, True] * 3
    for task in waiting[1::2]:
        with pytest.raises(StorageFull):
            await task
    waiting.append(asyncio.create_task(group.submit(6)))
    storage.away = False
    assert await within_deadline(asyncio.gather(*waiting[::2])) == [0, 2, 4, 6]
    assert storage.taken == [0, 2, 4, 6]
    assert await group.submit(7) == 7


async def test_a_unit_that_is_not_kept_does_not_wait_for_a_storage_that_is_down(db):
    storage = Storage()
    group = committer(db, storage)
    waiting = asyncio.create_task(group.submit(0))
    await until(lambda: group._trouble)
    db.trouble._usable.clear()
    with pytest.raises(StorageFull):
        await within_deadline(group.submit(1))
    assert not waiting.done()
    await group.close()
    with pytest.raises(StorageFull):
        await waiting


async def test_a_committer_that_is_closed_tries_once_more(db):
    storage = Storage()
    group = committer(db, storage)
    waiting = asyncio.create_task(group.submit(0))
    await until(lambda: group._trouble)
    storage.away = False
    await group.close()
    assert await waiting == 0


def test_each_wait_is_longer_up_to_a_bound_and_no_two_who_wait_are_alike():
    for attempt in range(100):
        waits = {retry_seconds(attempt) for _ in range(20)}
        assert len(waits) > 1
        assert min(waits) >= MIN_RETRY_SECONDS / 2
        assert max(waits) <= MAX_RETRY_SECONDS
    assert retry_seconds(3) > retry_seconds(0)
    assert retry_seconds(10**6) >= MAX_RETRY_SECONDS / 2


class Watched:
    """A storage that is watched, and what is told of it."""

    def __init__(self) -> None:
        self.works = True
        self.probes = 0
        self.told: list[bool] = []

    async def probe(self) -> None:
        self.probes += 1
        if not self.works:
            raise StorageUnavailable

    async def set_ready(self, ready: bool) -> None:
        self.told.append(ready)


async def test_a_storage_in_trouble_gets_a_line_one_a_minute_and_one_when_that_is_over(monkeypatch):
    trouble, storage, now = Trouble(), Watched(), 1000.0
    monkeypatch.setattr(module, "retry_seconds", lambda _: 0.001)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    storage.works = False
    with structlog.testing.capture_logs() as logged:
        watching = asyncio.create_task(trouble.watch(storage.probe, storage.set_ready))
        for _ in range(100):
            trouble.report(StorageUnavailable())
        await until(lambda: storage.probes > 20)
        # The first was before it was known to be down.
        assert [line["event"] for line in logged] == ["storage_unusable"] * 2
        assert storage.told == [False]
        now += 61
        await until(lambda: len(logged) == 3)
        before = storage.probes
        await until(lambda: storage.probes > before + 20)
        storage.works = True
        await until(lambda: len(storage.told) == 2)
        watching.cancel()
    assert [line["event"] for line in logged] == ["storage_unusable"] * 3 + ["storage_usable_again"]
    assert storage.told == [False, True]


async def test_the_line_names_what_took_too_long_a_timeout():
    """asyncio raises it from that it has cancelled what took too long."""
    with structlog.testing.capture_logs() as logged:
        try:
            async with asyncio.timeout(0):
                await asyncio.sleep(60)
        except TimeoutError as error:
            Trouble().report(error)
    assert [line["reason"] for line in logged] == ["TimeoutError: "]


async def test_a_connection_that_was_lost_and_is_replaced_makes_no_server_unready():
    trouble, storage = Trouble(), Watched()
    watching = asyncio.create_task(trouble.watch(storage.probe, storage.set_ready))
    trouble.report(StorageUnavailable())
    await until(lambda: storage.probes)
    await asyncio.sleep(0)
    watching.cancel()
    assert storage.told == []


async def test_a_probe_leaves_nothing_behind(db):
    await db.probe()
    await db.probe()
