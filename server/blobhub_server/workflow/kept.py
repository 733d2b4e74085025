"""Things that are made once and kept, the least recently asked for forgotten first, within a count and a size."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Kept(Generic[Thing]):
    """So many things of so many bytes in all, by their key."""

    def __init__(self, *, max_things: int, max_bytes: int) -> None:
        self._max_things = max_things
        self._room = max_bytes
        self._things: OrderedDict[str, tuple[Thing, int]] = OrderedDict()
        self._making: dict[str, asyncio.Task[Thing]] = {}

    def get(self, key: str) -> Thing | None:
        """The thing under a key, if it is kept."""
        found = self._things.get(key)
        if found is None:
            return None
        self._things.move_to_end(key)
        return found[0]

    def keep(self, key: str, thing: Thing, size: int) -> None:
        """Keep a thing of so many bytes, and let go of others until there is room for it; at least one is always kept."""
        if key in self._things:
            return
        self._things[key] = (thing, size)
        self._room -= size
        while len(self._things) > 1 and (self._room < 0 or len(self._things) > self._max_things):
            _, (_, freed) = self._things.popitem(last=False)
            self._room += freed

    async def obtain(self, key: str, make: Callable[[], Awaitable[tuple[Thing, int]]]) -> Thing:
        """The thing under a key, made once for all who ask meanwhile; `make` gives it and its bytes."""
        found = self.get(key)
        if found is not None:
            return found
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = asyncio.create_task(self._make(key, make))
            making.add_done_callback(lambda _: self._making.pop(key))
        # Others may wait for it too, so a caller that goes away does not end it.
        return await asyncio.shield(making)

    async def _make(self, key: str, make: Callable[[], Awaitable[tuple[Thing, int]]]) -> Thing:
        thing, size = await make()
        self.keep(key, thing, size)
        return thing
