"""Values are made once, and cached within a count and a size."""

from __future__ import annotations

import asyncio

from blobhub_server.cache import Cache
from hypothesis import given
from hypothesis import strategies as st


async def test_what_many_ask_for_at_once_is_made_once_and_a_failure_is_not_cached() -> None:
    cache: Cache[str] = Cache(max_count=3, max_bytes=50)
    made: list[str] = []

    async def make() -> tuple[str, int]:
        made.append("a")
        await asyncio.sleep(0)
        if len(made) == 1:
            raise ValueError
        return "A", 1

    asking = [asyncio.create_task(cache.obtain("a", make)) for _ in range(5)]
    assert [type(error) for error in await asyncio.gather(*asking, return_exceptions=True)] == [ValueError] * 5
    asking = [asyncio.create_task(cache.obtain("a", make)) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    assert (await asyncio.gather(*asking, return_exceptions=True))[1:] == ["A"] * 4
    assert await cache.obtain("a", make) == "A"
    assert made == ["a", "a"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 40))))
def test_a_cache_stays_within_its_count_and_its_bytes(asked: list[tuple[str, int]]) -> None:
    cache: Cache[str] = Cache(max_count=3, max_bytes=50)
    sizes: dict[str, int] = {}
    for key, size in asked:
        if cache.get(key) is None:
            sizes[key] = size
        cache.put(key, key.upper(), size)
        assert cache.get(key) == key.upper()
        there = [key for key in "abcdef" if key in cache._entries]
        assert len(there) <= 3
        assert len(there) == 1 or sum(sizes[key] for key in there) <= 50
