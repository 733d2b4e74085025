"""Things that are made once and kept, the least recently asked for forgotten first, within a count and a size."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Kept(Generic[Thing]):
    """So many things of so many bytes in all, by their key."""

    def __init__(self, *, max_things: int, max_bytes: int) -> None:
        self._max_things = max_things
        self._room = max_bytes
        self._things: OrderedDict[str, tuple[Thing, int]] = OrderedDict()

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
