"""Turns at work that takes long: it is done in threads, a few at a time, and those who ask for it go round.

A thread that runs Python holds up the loop for some milliseconds at most, but two share the processor with it, and ten
would leave it a tenth.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class Turns:
    """Runs functions in threads, at most so many at once. Those who wait take turns by their keys."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def run(self, key: str, function: Callable[[], Result]) -> Result:
        """What a function gives, once it is the turn of that key. A caller that goes away does not end the thread."""
        await self._turn(key)
        work = asyncio.get_running_loop().run_in_executor(None, function)
        work.add_done_callback(lambda _: self._pass_on())
        return await asyncio.shield(work)

    async def _turn(self, key: str) -> None:
        if self._free:
            self._free -= 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Give a turn that has ended to whoever is next."""
        while self._waiting:
            key, waiters = self._waiting.popitem(last=False)
            waiter = waiters.popleft()
            if waiters:
                self._waiting[key] = waiters
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1
