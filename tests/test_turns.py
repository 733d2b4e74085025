"""Turns at work in threads: so many at once, by turns of those who ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from blobhub_server.workflow.turns import Turns
from waiting import until


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
    turns, work = Turns(1), Work()
    tasks = [asyncio.create_task(turns.run("a", work.named(f"a{number}"))) for number in range(4)]
    await until(lambda: work.began == ["a0"])
    tasks += [asyncio.create_task(turns.run(name, work.named(name))) for name in "bc"]
    await asyncio.sleep(0)
    work.go_on.set()
    assert await asyncio.gather(*tasks) == ["a0", "a1", "a2", "a3", "b", "c"]
    assert work.began == ["a0", "a1", "b", "c", "a2", "a3"]


async def test_a_caller_that_goes_away_leaves_its_turn_to_others_when_its_work_has_ended() -> None:
    turns, work = Turns(1), Work()
    first = asyncio.create_task(turns.run("a", work.named("first")))
    await until(lambda: work.began == ["first"])
    waiting = asyncio.create_task(turns.run("a", work.named("waiting")))
    last = asyncio.create_task(turns.run("b", work.named("last")))
    await asyncio.sleep(0)
    for task in (first, waiting):
        task.cancel()
    await asyncio.gather(first, waiting, return_exceptions=True)
    assert work.began == ["first"]
    work.go_on.set()
    assert await last == "last"
    assert await turns.run("a", work.named("again")) == "again"
    assert work.began == ["first", "last", "again"]


async def test_work_that_fails_gives_its_turn_back() -> None:
    turns = Turns(1)
    failed = await asyncio.gather(*(turns.run("a", lambda: 1 // 0) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in failed] == [ZeroDivisionError] * 3
    assert await turns.run("a", lambda: 1) == 1
