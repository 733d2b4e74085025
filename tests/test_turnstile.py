"""Turns at what is scarce: so many at once, by rounds of those who ask, and so many who wait."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from blobhub_server.cache import Cache
from blobhub_server.errors import Overloaded
from blobhub_server.turnstile import Party, Turnstile
from hypothesis import given
from hypothesis import strategies as st
from waiting import until, within_deadline


class Work:
    """Functions that wait until they are let go on."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.go_on = threading.Event()

    def named(self, name: str) -> Callable[[], str]:
        def work() -> str:
            self.began.append(name)
            assert self.go_on.wait(60)
            return name

        return work


async def test_one_who_asks_often_waits_as_long_as_others_who_ask_once() -> None:
    turns, work = Turnstile(1), Work()
    tasks = [asyncio.create_task(turns.run(("a", "a"), work.named(f"a{number}"))) for number in range(4)]
    await until(lambda: work.began == ["a0"])
    tasks += [asyncio.create_task(turns.run((name, name), work.named(name))) for name in "bc"]
    await asyncio.sleep(0)
    work.go_on.set()
    assert await asyncio.gather(*tasks) == ["a0", "a1", "a2", "a3", "b", "c"]
    assert work.began == ["a0", "a1", "b", "c", "a2", "a3"]


async def test_a_caller_that_goes_away_leaves_its_turn_to_others_when_its_work_has_ended() -> None:
    turns, work = Turnstile(1), Work()
    first = asyncio.create_task(turns.run(("a", "a"), work.named("first")))
    await until(lambda: work.began == ["first"])
    waiting = asyncio.create_task(turns.run(("a", "a"), work.named("waiting")))
    last = asyncio.create_task(turns.run(("b", "b"), work.named("last")))
    await asyncio.sleep(0)
    for task in (first, waiting):
        task.cancel()
    await asyncio.gather(first, waiting, return_exceptions=True)
    assert work.began == ["first"]
    work.go_on.set()
    assert await last == "last"
    assert await turns.run(("a", "a"), work.named("again")) == "again"
    assert work.began == ["first", "last", "again"]


async def test_work_that_fails_gives_its_turn_back() -> None:
    turns = Turnstile(1)
    failed = await asyncio.gather(*(turns.run(("a", "a"), lambda: 1 // 0) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in failed] == [ZeroDivisionError] * 3
    assert await turns.run(("a", "a"), lambda: 1) == 1


async def test_a_turn_is_not_lost_where_no_thread_can_be_begun() -> None:
    turns, ended = Turnstile(1), ThreadPoolExecutor(1)
    ended.shutdown()
    with pytest.raises(RuntimeError):
        await turns.run(("a", "a"), lambda: 1, ended)
    assert await within_deadline(turns.run(("a", "a"), lambda: 1)) == 1


async def wait_in_line(turns: Turnstile, party: Party, order: list[Party]) -> None:
    async with turns.turn(party):
        order.append(party)


async def in_line(turns: Turnstile, parties: list[Party], order: list[Party]) -> list[asyncio.Task[None]]:
    """Have parties wait, in this order."""
    tasks = [asyncio.create_task(wait_in_line(turns, party, order)) for party in parties]
    await asyncio.sleep(0)
    return tasks


async def test_turns_go_round_by_group_and_in_a_group_by_caller() -> None:
    turns, order = Turnstile(1), list[Party]()
    await turns.enter(("", ""))
    many = [("acme", "loud")] * 3 + [("acme", "quiet")] * 2 + [("globex", "one")] * 2
    tasks = await in_line(turns, many, order)
    turns.leave()
    await within_deadline(asyncio.gather(*tasks))
    assert order == [
        ("acme", "loud"),
        ("globex", "one"),
        ("acme", "quiet"),
        ("globex", "one"),
        ("acme", "loud"),
        ("acme", "quiet"),
        ("acme", "loud"),
    ]


async def test_beyond_the_bound_the_last_of_whoever_has_most_waiting_is_refused() -> None:
    turns, order = Turnstile(1, max_waiting=4), list[Party]()
    await turns.enter(("", ""))
    loud = await in_line(turns, [("acme", "loud")] * 5, order)
    assert isinstance((await asyncio.wait(loud[4:]))[0].pop().exception(), Overloaded)
    others = await in_line(turns, [("acme", "quiet"), ("globex", "one")], order)
    assert {type(task.exception()) for task in (await asyncio.wait(loud[2:]))[0]} == {Overloaded}
    assert turns.waiting == 4
    turns.leave()
    await within_deadline(asyncio.gather(*loud[:2], *others))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from(["wait", "cancel", "leave"]))))
def test_no_turn_is_lost_or_made_however_waiters_go_away(steps: list[tuple[str, str, str]]) -> None:
    async def go() -> None:
        turns, inside = Turnstile(2, max_waiting=3), 0
        tasks: list[asyncio.Task[None]] = []
        goes_on = asyncio.Event()

        async def stay(party: Party) -> None:
            nonlocal inside
            async with turns.turn(party):
                inside += 1
                assert inside <= 2
                try:
                    await goes_on.wait()
                finally:
                    inside -= 1

        for group, name, step in steps:
            if step == "wait":
                tasks.append(asyncio.create_task(stay((group, name))))
            elif tasks:
                tasks.pop(0 if step == "leave" else -1).cancel()
            if group == "a":
                await asyncio.sleep(0)
            assert turns.waiting <= 3
        goes_on.set()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(error) for error in ended} <= {type(None), Overloaded}
        for _ in range(2):
            await asyncio.wait_for(turns.enter(("a", "x")), 60)
        assert turns.waiting == 0

    asyncio.run(go())


async def test_work_that_fails_after_its_callers_have_gone_is_no_noise() -> None:
    """The test fails for what asyncio logs of a task whose exception nobody has retrieved."""
    turns, work, cache = Turnstile(1), Work(), Cache[str](max_count=1, max_bytes=1)

    def fail() -> tuple[str, int]:
        work.named("failing")()
        raise ZeroDivisionError

    asking = [
        asyncio.create_task(turns.run(("a", "a"), fail)),
        asyncio.create_task(cache.obtain("key", lambda: turns.run(("a", "b"), fail))),
    ]
    await until(lambda: work.began == ["failing"])
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    work.go_on.set()
    await within_deadline(turns.enter(("c", "c")))
    await asyncio.sleep(0.01)
    gc.collect()
    assert work.began == ["failing", "failing"]
