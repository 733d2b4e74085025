"""What PostgreSQL alone has: connections that are lost or freeze, their limits, and deadlocks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import sqlalchemy as sa
from blobhub_server.db import postgresql
from blobhub_server.db.engine import Transaction
from blobhub_server.db.group import GroupCommitter
from blobhub_server.db.opening import open_database
from blobhub_server.db.prepared import lock_rows
from blobhub_server.db.trouble import StorageBusy
from blobhub_server.errors import StorageUnavailable
from notes import note, notes, numbers
from waiting import within_deadline


async def test_a_transaction_that_begins_on_a_lost_connection_fails_as_others_do(fresh_postgres):
    db = await open_database(await fresh_postgres())
    async with db.read() as tx:
        tx._driver.terminate()
        with pytest.raises(StorageUnavailable):
            await tx.begin()
    await db.close()


async def test_a_server_that_freezes_in_a_transaction_does_not_hold_the_others(fresh_postgres, monkeypatch):
    monkeypatch.setattr(postgresql, "POOL_BOUNDS", replace(postgresql.POOL_BOUNDS, idle_in_transaction_seconds=1))
    db = await open_database(await fresh_postgres())
    async with db.write() as tx:
        await tx.execute(sa.schema.CreateTable(notes))
        await note(tx, 1)
    locked = lock_rows(sa.select(notes.c.id))
    with pytest.raises(StorageUnavailable):
        async with db.write() as frozen:
            await frozen.execute(locked)
            async with db.write() as other:
                await within_deadline(other.execute(locked))
    await db.close()


async def test_where_no_connection_is_free_for_long_calls_are_told_to_come_again_and_units_of_executions_wait(
    fresh_postgres, monkeypatch
):
    monkeypatch.setattr(postgresql, "POOL_SECONDS", 0.1)
    db = await open_database(await fresh_postgres())
    reported: list[BaseException] = []
    monkeypatch.setattr(db.trouble, "_say", reported.append)

    async def apply(tx: Transaction, units: Sequence[str]) -> Sequence[str]:
        await tx.execute(sa.text("SELECT 1"))
        return units

    committer: GroupCommitter[str, str] = GroupCommitter(db, apply, kept=lambda unit: unit == "kept")
    async with AsyncExitStack() as stack:
        for _ in range(2 * postgresql.POOL_SIZE):
            await stack.enter_async_context(db.read())
        for connection in (db.read, db.write):
            with pytest.raises(StorageBusy) as raised:
                async with connection():
                    pass
            assert (raised.value.code, raised.value.reason) == ("RESOURCE_EXHAUSTED", "STORAGE_BUSY")
            assert raised.value.retry_after_seconds
        kept = asyncio.create_task(committer.submit("kept"))
        with pytest.raises(StorageBusy):
            await within_deadline(committer.submit("new"))
        assert not kept.done()
    assert await within_deadline(kept) == "kept"
    assert reported == []
    await committer.close()
    await db.close()


async def test_connections_have_limits_by_what_they_are_for_and_migrations_have_none(fresh_postgres):
    async def limits(tx) -> list[str]:
        names = ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout")
        return [(await tx.execute(sa.text(f"SHOW {name}"))).scalar_one() for name in names]

    url = await fresh_postgres()
    db = await open_database(url)
    async with db.write() as tx:
        assert await limits(tx) == ["10s", "30s", "2min"]
    async with db.reserved() as tx:
        assert await limits(tx) == ["5s", "5s", "5s"]
    await db.close()
    engine = postgresql.make_engine(sa.make_url(url))
    async with engine.connect() as connection:
        assert await limits(connection) == ["0", "0", "0"]
    await engine.dispose()


async def test_a_transaction_that_gives_way_is_done_again(fresh_postgres):
    """Two that lock two rows in opposite order: PostgreSQL ends one of them, and both are done."""
    db = await open_database(await fresh_postgres())
    async with db.write() as tx:
        await tx.execute(sa.schema.CreateTable(notes))
        await note(tx, 1, 2)
    tried, met, done = [], asyncio.Barrier(2), asyncio.Event()

    async def both(first: int, second: int) -> None:
        async def work(tx):
            tried.append(first)
            if len(tried) > 2:
                await done.wait()  # or the two may meet again
            await lock(tx, first)
            if len(tried) <= 2:
                await met.wait()
            await lock(tx, second)
            await note(tx, first + 10)

        await db.transact(work)
        done.set()

    async def lock(tx, id_: int) -> None:
        await tx.execute(lock_rows(sa.select(notes.c.id).where(notes.c.id == id_)))

    await within_deadline(asyncio.gather(both(1, 2), both(2, 1)))
    assert await numbers(db) == [1, 2, 11, 12]
    assert len(tried) == 3, "neither had to give way, or one more than once"
    await db.close()
