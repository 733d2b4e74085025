"""The lane of long reads: how many run at once, and how many wait for their turn.

To wait for a turn is no trouble of the storage, and is not reported as such.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from blobhub_server.errors import Overloaded

LONG_READS = 4
"""How many long reads run at once, so that short statements always find a connection; on SQLite each has a thread."""
MAX_WAITING = 128
"""How many reads of calls may wait for a turn."""


class Lane:
    """The turns of one database's long reads, in the order in which they are asked for."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(LONG_READS)
        self._waiting = 0

    @asynccontextmanager
    async def turn(self, *, patient: bool) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block is left. Raises Overloaded when too many wait, unless `patient`."""
        if self._waiting >= MAX_WAITING and not patient:
            raise Overloaded
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()
