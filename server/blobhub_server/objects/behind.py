"""What a writer does with the bytes that came last, while the next ones come."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Behind:
    """One piece of work that goes on beside whoever has begun it."""

    def __init__(self) -> None:
        self._working: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether work was begun that nobody has waited for."""
        return self._working is not None

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin the next piece, once the one before is settled."""
        self._working = asyncio.create_task(work)

    async def settle(self) -> None:
        """Wait for the end of what was begun. Raises what it raises."""
        working, self._working = self._working, None
        if working is not None:
            await working

    async def forget(self) -> None:
        """Wait for the end of what was begun, whatever comes of it."""
        working, self._working = self._working, None
        if working is not None:
            await asyncio.wait({working})
            working.exception()  # or asyncio would log it: whoever aborts is told nothing
