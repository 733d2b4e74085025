"""The queue of schedules that are due: in turns by organization, and what becomes due meanwhile joins it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from blobhub_server.db.engine import Database
from blobhub_server.db.opening import open_database
from blobhub_server.scheduler.engine import due_queue
from blobhub_server.scheduler.engine.due_queue import DueQueue
from blobhub_server.scheduler.store.schedule import schedules
from firing import SetClock, utc

NOW = utc("2027-03-28 01:30")
SECOND = timedelta(seconds=1)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    opened = await open_database(database_url)
    yield opened
    await opened.close()


async def put(db: Database, organization: str, count: int, *, due: timedelta = -SECOND) -> None:
    """Store schedules of an organization that are due so long after NOW, one microsecond after the other."""
    rows = [
        {
            **{"id": str(uuid.uuid4()), "organization_id": organization, "blob_id": organization},
            **{
                "alias": f"{due} {number}",
                "enabled": True,
                "pause_note": "",
                "version_id": "some",
                "saved_revision_id": "",
                "tzdata": "",
                "etag": "",
            },
            **{"create_time": NOW, "update_time": NOW, "next_due_time": NOW + due + number * timedelta(microseconds=1)},
        }
        for number in range(count)
    ]
    async with db.write() as tx:
        await tx.execute(schedules.insert(), rows)


async def taken(queue: DueQueue, count: int) -> str:
    """The organizations of so many that are taken out, a letter each."""
    return "".join(each.organization_id for each in await queue.take(count))


async def test_one_of_each_organization_is_taken_then_another_one_of_each(db: Database) -> None:
    await put(db, "a", 5, due=-2 * SECOND)
    await put(db, "b", 2)
    queue = DueQueue(db, SetClock(NOW))
    await queue.fill()
    assert await taken(queue, 3) + await taken(queue, 10) == "ababaaa"
    assert await taken(queue, 10) == ""


async def test_what_becomes_due_meanwhile_has_its_turn_before_the_rest_of_others(db: Database) -> None:
    await put(db, "a", 6)
    await put(db, "b", 3, due=SECOND)
    await put(db, "a", 1, due=SECOND)
    clock = SetClock(NOW)
    queue = DueQueue(db, clock)
    await queue.fill()
    assert await taken(queue, 2) == "aa"
    clock.now = NOW + 2 * SECOND
    assert await taken(queue, 4) == "abab"
    assert await taken(queue, 10) == "abaa"
    assert await taken(queue, 10) == ""


async def test_a_queue_that_many_join_is_begun_anew(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or what is due the longest, and could not be taken, would never be looked at again."""
    monkeypatch.setattr(due_queue, "MAX_QUEUED", 3)
    await put(db, "a", 3)
    await put(db, "b", 9, due=SECOND)
    clock = SetClock(NOW)
    queue = DueQueue(db, clock)
    await queue.fill()
    clock.now = NOW + 2 * SECOND
    found = [await taken(queue, 2) for _ in range(5)]
    assert "".join(found).count("b") == 3
    assert found[-1] == ""
