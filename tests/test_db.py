"""The database: transactions, and how rows come back. On SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from blobhub_server.clock import utc_now
from blobhub_server.db.engine import MAX_ATTEMPTS, TransactionAborted
from blobhub_server.db.opening import open_database
from blobhub_server.db.prepared import Prepared, upsert
from blobhub_server.db.schema import Time
from blobhub_server.db.sqlite_file import DatabaseInUse
from blobhub_server.errors import StorageUnavailable
from hypothesis import given
from hypothesis import strategies as st
from notes import database_of_notes, note, notes, numbers
from scale import scaled
from waiting import DEADLINE_SECONDS, within_deadline


@pytest.fixture
async def db(database_url):
    async with database_of_notes(database_url) as opened:
        yield opened


@pytest.fixture
async def sqlite(tmp_path):
    async with database_of_notes(f"sqlite:///{tmp_path / 'blobhub.db'}") as opened:
        yield opened


# Transactions


async def test_what_a_block_writes_is_there_when_it_ends(db):
    told = []
    async with db.write() as tx:
        await note(tx, 1, 2)
        tx.after_commit(lambda: told.append("committed"))
        assert told == []
        assert await numbers(db) == []
    assert told == ["committed"]
    assert await numbers(db) == [1, 2]


async def test_an_exception_undoes_the_block_and_its_hooks_are_not_called(db):
    told = []
    with pytest.raises(ZeroDivisionError):
        async with db.write() as tx:
            await note(tx, 1)
            tx.after_commit(lambda: told.append("committed"))
            raise ZeroDivisionError
    assert (told, await numbers(db)) == ([], [])


async def test_a_savepoint_fails_by_itself(db):
    async with db.write() as tx:
        await note(tx, 1)
        with pytest.raises(sa.exc.IntegrityError):
            async with tx.savepoint():
                await note(tx, 2)
                await note(tx, 1)
        await note(tx, 3)
    assert await numbers(db) == [1, 3]


async def test_a_hook_of_a_savepoint_that_is_rolled_back_is_not_called_after_the_commit(db):
    told = []
    async with db.write() as tx:
        tx.after_commit(lambda: told.append("before"))
        async with tx.savepoint():
            tx.after_commit(lambda: told.append("kept"))
            with pytest.raises(ZeroDivisionError):
                async with tx.savepoint():
                    await note(tx, 1)
                    tx.after_commit(lambda: told.append("undone"))
                    raise ZeroDivisionError
        with pytest.raises(sa.exc.IntegrityError):
            async with tx.savepoint():
                tx.after_commit(lambda: told.append("refused"))
                await note(tx, 2, 2)
        tx.after_commit(lambda: told.append("after"))
    assert (told, await numbers(db)) == (["before", "kept", "after"], [])


ENDLESS = sa.text("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")


async def test_a_long_read_whose_caller_goes_away_gives_its_connection_to_others(db):
    async def read_endlessly():
        async with db.scan(("", "")) as tx:
            await tx.execute(ENDLESS)

    for _ in range(2):
        reads = [asyncio.create_task(read_endlessly()) for _ in range(4)]
        await asyncio.sleep(0.05)
        for read in reads:
            read.cancel()
        await within_deadline(asyncio.wait(reads))
        assert all(read.cancelled() for read in reads)
    async with asyncio.timeout(DEADLINE_SECONDS), db.scan(("", "")) as tx:
        assert (await tx.execute(sa.text("SELECT 1"))).scalar_one() == 1


async def test_a_long_read_holds_up_no_short_one_and_changes_nothing(db):
    async def read_endlessly():
        async with db.scan(("", "")) as tx:
            await tx.execute(ENDLESS)

    reading = asyncio.create_task(read_endlessly())
    async with db.write() as tx:
        await note(tx, 1)
    assert await numbers(db) == [1]
    assert not reading.done()
    reading.cancel()
    with pytest.raises((sa.exc.DBAPIError, StorageUnavailable)):
        async with db.scan(("", "")) as tx:
            await note(tx, 2)
    assert await numbers(db) == [1]


async def test_others_have_their_turn_while_thousands_of_rows_are_written(db):
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    others = asyncio.create_task(take_turns())
    await asyncio.sleep(0)
    put = Prepared(notes.insert().values(id=sa.bindparam("id")))
    async with db.write() as tx:
        before = turns
        assert await tx.run_each(put, [{"id": number} for number in range(20_000)]) == []
        assert turns > before
    others.cancel()
    assert len(await numbers(db)) == 20_000


async def test_an_upsert_changes_the_row_that_is_there(db):
    early, late = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
    for at in (early, late):
        async with db.write() as tx:
            await tx.run(Prepared(upsert(notes, keys=[notes.c.id], changed=[notes.c.at])), id=1, at=at)
    async with db.read() as tx:
        assert (await tx.execute(sa.select(notes.c.at))).scalars().all() == [late]


@pytest.mark.parametrize("seed", range(scaled(5, least=2)))
async def test_a_writer_cancelled_anywhere_leaves_a_usable_database_and_a_known_outcome(db, seed):
    """The hook runs exactly when the row is there, however often and whenever the writer is cancelled."""
    dice = random.Random(seed)
    told: set[int] = set()

    async def write(number: int) -> None:
        async with db.write() as tx:
            await note(tx, number)
            tx.after_commit(lambda: told.add(number))
            await note(tx, -number)

    for round_ in range(20):
        running = [asyncio.create_task(write(round_ * 10 + n)) for n in range(1, 4)]
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(dice.random() * 0.004)
            dice.choice(running).cancel()
        done, late = await asyncio.wait(running, timeout=DEADLINE_SECONDS)
        assert not late
        assert all(task.cancelled() or task.exception() is None for task in done)
        kept = await numbers(db)
        assert {n for n in kept if n > 0} == told == {-n for n in kept if n < 0}


async def test_a_cancelled_commit_is_finished_before_the_next_writer_has_its_turn(sqlite):
    told = []

    async def write() -> None:
        async with sqlite.write() as tx:
            await note(tx, 1)
            tx.after_commit(lambda: told.append(1))
            # The cancellation arrives at the next wait, and that is the commit.
            asyncio.current_task().cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(write())
    assert (await numbers(sqlite), told) == ([1], [1])


async def test_a_commit_that_fails_undoes_the_block_and_the_next_writer_can_write(db):
    """A reference that is checked at the commit makes it fail; a full disk would, in the same place."""
    told = []
    async with db.write() as tx:
        await tx.execute(
            sa.text(
                "CREATE TABLE test_references (id INTEGER PRIMARY KEY,"
                " parent INTEGER REFERENCES test_references (id) DEFERRABLE INITIALLY DEFERRED)"
            )
        )
    for _ in range(2):
        with pytest.raises(sa.exc.IntegrityError):
            async with db.write() as tx:
                tx.after_commit(lambda: told.append("committed"))
                await note(tx, 1)
                await tx.execute(sa.text("INSERT INTO test_references VALUES (1, 99)"))
    async with db.write() as tx:
        await note(tx, 2)
    assert (await numbers(db), told) == ([2], [])


async def test_a_commit_of_what_the_database_has_rolled_back_is_an_error(db):
    """A statement failed, and whoever ran it went on as if it had not."""
    refused, told = "INSERT OR ROLLBACK" if db.exclusive else "INSERT", []
    with pytest.raises(TransactionAborted):
        async with db.write() as tx:
            tx.after_commit(lambda: told.append("committed"))
            await note(tx, 1)
            with pytest.raises(sa.exc.IntegrityError):
                await tx.execute(sa.text(f"{refused} INTO test_notes (id) VALUES (1)"))
    async with db.write() as tx:
        await note(tx, 2)
    assert (await numbers(db), told) == ([2], [])


async def test_a_hook_that_fails_takes_nothing_back_and_stops_no_other(db):
    told = []
    async with db.write() as tx:
        await note(tx, 1)
        tx.after_commit(lambda: 1 / 0)
        tx.after_commit(lambda: told.append("committed"))
    assert (await numbers(db), told) == ([1], ["committed"])


async def test_a_transaction_gives_way_so_often_and_no_more(db):
    tried = []

    async def work(tx):
        tried.append(tx)
        await note(tx, len(tried))
        raise sa.exc.DBAPIError("", {}, Deadlock())

    with pytest.raises(StorageUnavailable):
        await db.transact(work)
    assert len(tried) == MAX_ATTEMPTS
    assert await numbers(db) == []


class Deadlock(Exception):
    """What the driver says of one."""

    sqlstate = "40P01"


async def test_sqlite_writers_take_turns_in_the_order_they_came(sqlite):
    order = []

    async def write(number: int) -> None:
        async with sqlite.write() as tx:
            await note(tx, number)
            order.append(number)

    await asyncio.gather(*(write(n) for n in range(30)))
    assert order == list(range(30))


async def test_sqlite_readers_cannot_write_and_do_not_wait_for_the_writer(sqlite):
    with pytest.raises(sa.exc.OperationalError, match="readonly"):
        async with sqlite.read() as tx:
            await note(tx, 1)
    async with sqlite.write() as tx:
        await note(tx, 1)
        assert await numbers(sqlite) == []


async def test_sqlite_commits_are_on_disk_before_they_are_reported(sqlite):
    async with sqlite.write() as tx:
        found = [
            (await tx.execute(sa.text(f"PRAGMA {pragma}"))).scalar()
            for pragma in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert found == ["wal", 2, 1]


async def test_a_second_server_on_the_same_sqlite_database_is_refused(sqlite):
    with pytest.raises(DatabaseInUse, match=f"pid {os.getpid()}"):
        await open_database(sqlite.url.render_as_string())


async def test_a_killed_server_holds_nothing(tmp_path):
    url = f"sqlite:///{tmp_path / 'blobhub.db'}"
    code = f"""
import asyncio, time
from blobhub_server.db.opening import open_database
db = asyncio.run(open_database({url!r}))
print("open", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as server:
        server.stdout.readline()
        with pytest.raises(DatabaseInUse, match=f"pid {server.pid}"):
            await open_database(url)
        server.send_signal(signal.SIGKILL)
    await (await open_database(url)).close()


@given(at=st.datetimes(timezones=st.just(UTC)), offset=st.integers(-720, 720))
def test_times_are_kept_to_the_microsecond_in_any_zone(at, offset):
    column = Time()
    stored = column.process_bind_param(at + timedelta(0), None)
    assert column.process_result_value(stored, None) == at
    assert (column.process_bind_param(at, None) < column.process_bind_param(datetime(2000, 1, 1, tzinfo=UTC), None)) == (
        at < datetime(2000, 1, 1, tzinfo=UTC)
    )


async def test_times_come_back_from_the_database_as_they_went_in(db):
    ends = [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), utc_now(), None]
    async with db.write() as tx:
        await tx.execute(notes.insert(), [{"id": n, "at": at} for n, at in enumerate(ends)])
    async with db.read() as tx:
        assert (await tx.execute(sa.select(notes.c.at).order_by(notes.c.id))).scalars().all() == ends
