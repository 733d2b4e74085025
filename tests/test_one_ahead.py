"""Work that is begun one ahead: in order, never more than that, and nothing of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing

import pytest
from blobhub_server.background import one_ahead


class Works:
    """Works that say when they begin and end."""

    def __init__(self, count: int, fails: int = -1) -> None:
        self.all = [self._make(number, fails=number == fails) for number in range(count)]
        self.said: list[str] = []

    def _make(self, number: int, *, fails: bool) -> Callable[[], Coroutine[None, None, int]]:
        async def work() -> int:
            self.said.append(f"begin {number}")
            await asyncio.sleep(0)
            self.said.append(f"end {number}")
            if fails:
                raise ValueError(number)
            return number

        return work


async def test_results_come_in_order_and_the_next_is_under_way() -> None:
    works = Works(4)
    async for result in one_ahead(works.all):
        assert f"begin {result + 2}" not in works.said
        for _ in range(3):
            await asyncio.sleep(0)
        assert f"end {min(result + 1, 3)}" in works.said
    assert [said for said in works.said if said.startswith("end")] == [f"end {number}" for number in range(4)]
    assert [result async for result in one_ahead([])] == []


async def test_whoever_stops_waits_for_what_is_under_way() -> None:
    works = Works(4)
    async with aclosing(one_ahead(works.all)) as results:
        await anext(results)
    assert works.said == ["begin 0", "begin 1", "end 0", "end 1"]


@pytest.mark.parametrize("fails", range(3))
async def test_an_error_comes_in_the_place_of_its_result(fails: int) -> None:
    works, found = Works(3, fails), list[int]()
    with pytest.raises(ValueError, match=str(fails)):
        async for result in one_ahead(works.all):
            found.append(result)
    assert found == list(range(fails))


async def test_an_error_that_nobody_waits_for_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with aclosing(one_ahead(Works(2, fails=1).all)) as results:
        await anext(results)
    assert caplog.text == ""
