"""Work beside the calls: tasks that run until a block is left, what no cancellation stops, and what takes turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

TURN_SECONDS = 0.002
"""How long work that takes turns holds the event loop at once."""


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Run `work` until the block is left; then cancel it and wait for its end."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def uninterrupted(work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work` to its end even when the caller is cancelled; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    result = task.result()
    if cancelled:
        raise asyncio.CancelledError
    return result


class Turns:
    """Breaks long work up, so that whatever else waits for the event loop has its turn in between."""

    def __init__(self) -> None:
        self._end = time.monotonic() + TURN_SECONDS

    async def pause(self) -> None:
        """Let others have their turn, if this one has lasted long enough."""
        if time.monotonic() >= self._end:
            await asyncio.sleep(0)
            self._end = time.monotonic() + TURN_SECONDS


async def in_turns(make: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What `make` makes of each item, in turns."""
    turns, made = Turns(), []
    for item in items:
        made.append(make(item))
        await turns.pause()
    return made
