"""The garbage collector, which stops everything while it goes over the objects that there are."""

from __future__ import annotations

import asyncio
import gc
from typing import ClassVar

_NEVER = 1 << 30


class FullCollections:
    """Puts off all collections but those of what was made just now, for some seconds.

    It is for whoever makes very many objects that stay for a while: the collector goes over all of them whenever they have
    become a quarter more, and finds nothing. Garbage whose objects lead to each other stays meanwhile.
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

    def _run_out(self, seconds: float) -> None:
        self.resume()
        self._not_before = asyncio.get_running_loop().time() + seconds
