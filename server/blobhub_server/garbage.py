"""The garbage collector, which stops everything while it goes over the objects that there are."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from blobhub_server.background import in_background

_NEVER = 1 << 30
MAX_PAUSE_SECONDS = 0.01
"""How long a full collection may take before what it leaves is set aside."""
MAX_SET_ASIDE = 300_000
"""How many more objects may be set aside before all are looked at: what is no more needed of them takes 50 MiB or less."""
LOOK_SECONDS = 60.0
FULL_EVERY = 4
"""A full collection comes after so many of the middle generation, with 7,000 objects each, where Python has 10."""


class ShortCollections:
    """Keeps full collections short, in a process of whose objects most stay, or go without the collector.

    A full collection goes over all there are, and finds little: 100 ms for 400,000. So what one has left that took long is
    set aside (`gc.freeze`), and the next goes over what has been made since. What is set aside goes when nothing refers to
    it, but for objects that lead to each other. These go when all are looked at, which is when very many have been set
    aside: that takes long, and is rarer the more there are.
    """

    active: ClassVar[bool] = False

    def __init__(self, *, max_pause_seconds: float = MAX_PAUSE_SECONDS, max_set_aside: int = MAX_SET_ASIDE) -> None:
        self._max_pause_seconds = max_pause_seconds
        self._max_set_aside = max_set_aside
        self._begun = 0.0
        self._looked_at = 0

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keep them short until the block is left. All that is there now is set aside."""
        gc.collect()
        gc.freeze()
        self._looked_at = gc.get_freeze_count()
        gc.callbacks.append(self._notice)
        thresholds = gc.get_threshold()
        gc.set_threshold(*thresholds[:2], FULL_EVERY)
        ShortCollections.active = True
        try:
            async with in_background(self._watch(), "garbage"):
                yield
        finally:
            ShortCollections.active = False
            gc.set_threshold(*thresholds)
            gc.callbacks.remove(self._notice)

    def look(self) -> None:
        """Look at all that is set aside, if that has become very much."""
        if gc.get_freeze_count() > self._looked_at + max(self._max_set_aside, self._looked_at):
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            self._looked_at = gc.get_freeze_count()

    def _notice(self, phase: str, about: Mapping[str, Any]) -> None:
        if about["generation"] < 2:
            return
        if phase == "start":
            self._begun = time.thread_time()
        elif time.thread_time() - self._begun > self._max_pause_seconds:
            gc.freeze()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()


class FullCollections:
    """Puts off all collections but those of what was made just now, for some seconds.

    It is for whoever makes very many objects that stay for a while: the collector goes over all of them whenever they have
    become a quarter more, and finds nothing. Garbage whose objects lead to each other stays meanwhile.

    What has been made meanwhile is set aside then, where collections are kept short: the next would go over all of it.
    """

    _thresholds: ClassVar[tuple[int, int, int]]
    _putting_off: ClassVar[set[FullCollections]] = set()

    def __init__(self) -> None:
        self._end: asyncio.TimerHandle | None = None
        self._not_before = 0.0

    def put_off(self, max_seconds: float) -> None:
        """Have none until `resume`, or for so many seconds; and then not again for as long."""
        loop = asyncio.get_running_loop()
        if self._end is not None or loop.time() < self._not_before:
            return
        self._end = loop.call_later(max_seconds, self._run_out, max_seconds)
        if not self._putting_off:
            FullCollections._thresholds = gc.get_threshold()
            # Nor those of the middle one: what has stayed for one collection stays.
            gc.set_threshold(self._thresholds[0], _NEVER, _NEVER)
        self._putting_off.add(self)

    def resume(self) -> None:
        """Have them as before."""
        if self._end is None:
            return
        self._end.cancel()
        self._end = None
        self._putting_off.discard(self)
        if not self._putting_off:
            gc.set_threshold(*self._thresholds)
            if ShortCollections.active:
                gc.freeze()

    def _run_out(self, seconds: float) -> None:
        self.resume()
        self._not_before = asyncio.get_running_loop().time() + seconds
