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
        self._alone: dict[tuple[str, str], tuple[str, asyncio.Event]] = {}

    @asynccontextmanager
    async def hold(self, session_id: str, aliases: Iterable[str], alone_for: str = "") -> AsyncIterator[None]:
        """Hold the locks of some objects of a session; who came first has them first.

        Where this is `alone_for` an execution, the turns of all others that touch the objects wait meanwhile, too.
        """
        async with AsyncExitStack() as stack:
            # All take them in one order, so that no two wait for each other.
            for alias in sorted(aliases):
                lock = self._locks.setdefault((session_id, alias), asyncio.Lock())
                await stack.enter_async_context(lock)
            ended = asyncio.Event()
            keys = [(session_id, alias) for alias in aliases] if alone_for else []
            self._alone |= dict.fromkeys(keys, (alone_for, ended))
            try:
                yield
            finally:
                for key in keys:
                    del self._alone[key]
                ended.set()

    async def wait(self, session_id: str, aliases: Iterable[str], execution_id: str) -> None:
        """Return when no other execution is alone with one of some objects, or this one is alone with any itself.

        Otherwise two that are alone with one object each, and touch both, would wait for each other.
        """
        while self._alone and not any(execution_id == owner for owner, _ in self._alone.values()):
            ended = next(
                (self._alone[session_id, alias][1] for alias in aliases if (session_id, alias) in self._alone), None
            )
            if ended is None:
                return
            await ended.wait()
