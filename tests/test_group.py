"""Group commit: units of several callers share transactions, and each gets its own result."""

from __future__ import annotations

import asyncio

import pytest
from blobhub_server.db.group import MAX_BATCH, GroupCommitter
from hypothesis import given, settings
from hypothesis import strategies as st
from notes import database_of_notes, note, notes, numbers
from scale import SHARED_FIXTURES, scaled
from waiting import within_deadline


@pytest.fixture
async def db(database_url):
    async with database_of_notes(database_url) as opened:
        yield opened


@pytest.fixture
async def sqlite(tmp_path):
    async with database_of_notes(f"sqlite:///{tmp_path / 'blobhub.db'}") as opened:
        yield opened


async def insert_all(tx, units):
    """A batch: each unit is a number that is stored; 13 is refused."""
    await note(tx, *units)
    if 13 in units:
        raise ZeroDivisionError
    return [unit * 2 for unit in units]


async def test_units_share_transactions_and_each_gets_its_own_result(db):
    batches = []

    async def apply(tx, units):
        batches.append(len(units))
        return await insert_all(tx, units)

    committer = GroupCommitter(db, apply)
    units = range(100, 100 + 2 * MAX_BATCH)
    assert await asyncio.gather(*(committer.submit(n) for n in units)) == [n * 2 for n in units]
    assert await numbers(db) == list(units)
    assert max(batches) <= MAX_BATCH
    assert len(batches) <= 4


@settings(max_examples=scaled(15, least=5), deadline=None, suppress_health_check=SHARED_FIXTURES)
@given(waves=st.lists(st.lists(st.sampled_from(["good", "bad", "left"]), max_size=6), max_size=4))
async def test_a_bad_unit_fails_alone_and_a_left_one_is_done_all_the_same(sqlite, waves):
    """`left` is a unit whose caller goes away; `bad` ones break the batch they are in."""
    order: list[int] = []

    async def apply(tx, units):
        await note(tx, *(n for n, _ in units))
        if any(kind == "bad" for _, kind in units):
            raise ZeroDivisionError
        tx.after_commit(lambda: order.extend(n for n, _ in units))
        return [n for n, _ in units]

    async with sqlite.write() as tx:
        await tx.execute(notes.delete())
    committer = GroupCommitter(sqlite, apply)
    count, expected, waiting = 0, [], []
    for wave in waves:
        for kind in wave:
            count += 1
            task = asyncio.create_task(committer.submit((count, kind)))
            waiting.append((count, kind, task))
            expected += [count] if kind != "bad" else []
        await asyncio.sleep(0)
        for _, kind, task in waiting:
            if kind == "left":
                task.cancel()
    await committer.close()
    for number, kind, task in waiting:
        if kind == "good":
            assert await task == number
        else:
            with pytest.raises(ZeroDivisionError if kind == "bad" else asyncio.CancelledError):
                await task
    assert order == expected == await numbers(sqlite)


async def test_a_batch_that_answers_too_few_results_fails_instead_of_hanging(sqlite):
    async def apply(tx, units):
        await note(tx, *units)
        return []

    committer = GroupCommitter(sqlite, apply)
    for outcome in await within_deadline(asyncio.gather(*(committer.submit(n) for n in range(3)), return_exceptions=True)):
        assert isinstance(outcome, ValueError)
    assert await numbers(sqlite) == []
