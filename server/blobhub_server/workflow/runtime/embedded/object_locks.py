"""Lets the steps that read and write the same session objects run one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary


class ObjectLocks:
    """Locks of session objects on this server, for steps that would be run again if another of them came first.

    What is right does not depend on them: what a step has read is compared when its end is written, and other servers and
    clients know nothing of these locks. Without them, though, all but one of those who run at once would run in vain.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, session_id: str, aliases: Iterable[str]) -> AsyncIterator[None]:
        """Hold the locks of some objects of a session; who came first has them first."""
        async with AsyncExitStack() as stack:
            # All take them in one order, so that no two wait for each other.
            for alias in sorted(aliases):
                lock = self._locks.setdefault((session_id, alias), asyncio.Lock())
                await stack.enter_async_context(lock)
            yield
