"""Turns of long work: one in an iteration of the event loop, and whoever waits has one each."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

import pytest
from blobhub_server import background
from blobhub_server.background import Turns
from waiting import within_deadline

PIECES = 20


@pytest.fixture(autouse=True)
def _no_turn_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "TURN_SECONDS", 0.0)


async def _work(done: list[str], name: str) -> None:
    turns = Turns()
    for _ in range(PIECES):
        await turns.pause()
        done.append(name)


async def test_an_iteration_of_the_loop_has_one_turn_however_many_work() -> None:
    loop, done = asyncio.get_running_loop(), list[str]()
    grown: list[int] = []

    def iterate() -> None:
        grown.append(len(done))
        if len(done) < 4 * PIECES:
            loop.call_soon(iterate)

    loop.call_soon(iterate)
    await within_deadline(asyncio.gather(*(_work(done, name) for name in "abcd")))
    assert max(after - before for before, after in pairwise(grown)) == 1
    assert Counter(done) == dict.fromkeys("abcd", PIECES)


async def test_those_who_wait_have_their_turns_one_after_the_other() -> None:
    done = list[str]()
    await within_deadline(asyncio.gather(*(_work(done, name) for name in "abc")))
    # The first has its first turn at once, because nobody waits.
    rounds = [{*done[start : start + 3]} for start in range(1, 3 * (PIECES - 1), 3)]
    assert rounds == [{*"abc"}] * (PIECES - 1)


async def test_whoever_is_cancelled_keeps_nobody_from_a_turn() -> None:
    done = list[str]()
    tasks = [asyncio.create_task(_work(done, name)) for name in "abc"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await within_deadline(asyncio.gather(tasks[0], tasks[2]))
    assert Counter(done)["a"] == Counter(done)["c"] == PIECES
