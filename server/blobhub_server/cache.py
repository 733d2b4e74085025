"""An LRU cache bounded by count and bytes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """An LRU cache bounded by count and bytes. It belongs to one event loop: threads may not share it."""

    def __init__(self, *, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._room_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[Value, int]] = OrderedDict()
        self._making: dict[str, asyncio.Task[Value]] = {}

    def get(self, key: str) -> Value | None:
        """The value of a key, if it is cached."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: str, value: Value, size_bytes: int) -> None:
        """Cache a value, and evict others until there is room for it. One that is larger than the bound is cached alone."""
        if key in self._entries:
            return
        self._entries[key] = (value, size_bytes)
        self._room_bytes -= size_bytes
        while len(self._entries) > 1 and (self._room_bytes < 0 or len(self._entries) > self._max_count):
            _, (_, freed) = self._entries.popitem(last=False)
            self._room_bytes += freed

    async def obtain(self, key: str, make: Callable[[], Awaitable[tuple[Value, int]]]) -> Value:
        """The value of a key, made once for all who ask meanwhile; `make` gives it and its size in bytes.

        Raises what `make` raises; then nothing is cached.
        """
        found = self.get(key)
        if found is not None:
            return found
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = asyncio.create_task(self._make(key, make))
            making.add_done_callback(partial(self._after_making, key))
        # Others may wait for it too, so a caller that goes away does not end it.
        return await asyncio.shield(making)

    def _after_making(self, key: str, making: asyncio.Task[Value]) -> None:
        del self._making[key]
        if not making.cancelled():
            making.exception()  # or asyncio would log it where all who waited have gone

    async def _make(self, key: str, make: Callable[[], Awaitable[tuple[Value, int]]]) -> Value:
        value, size_bytes = await make()
        self.put(key, value, size_bytes)
        return value
