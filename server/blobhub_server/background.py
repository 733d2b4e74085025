"""Work beside the calls: tasks that run until a block is left, what no cancellation stops, and what takes turns."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

IN_PLACE_BYTES = 128 << 10
"""How much is gone over on the event loop. JSON of so many bytes takes 5 ms at the worst, and most takes one."""

Result = TypeVar("Result")

TURN_SECONDS = 0.002
"""How long work that takes turns holds the event loop at once."""

# One thread, because such work is Python: each thread more would take the interpreter's lock from the event loop once more.
_BESIDE = ThreadPoolExecutor(max_workers=1, thread_name_prefix="off-loop")


async def off_loop(size: int, work: Callable[[], Result]) -> Result:
    """What `work` returns or raises; called in the one thread beside the loop if `size` bytes are many."""
    return work() if size <= IN_PLACE_BYTES else await asyncio.get_running_loop().run_in_executor(_BESIDE, work)


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


class Rounds(Generic[Item]):
    """A queue that goes round: it gives one item of each party, then another one of each; those of one party in order."""

    def __init__(self, party: Callable[[Item], Hashable]) -> None:
        self._party = party
        self._items: OrderedDict[Hashable, deque[Item]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, item: Item) -> None:
        """Queue an item. A party that has none waiting comes last in the round."""
        self._items.setdefault(self._party(item), deque()).append(item)
        self._length += 1

    def pop(self) -> Item:
        """The next item. Raises StopIteration when there is none."""
        party = next(iter(self._items))
        waiting = self._items[party]
        item = waiting.popleft()
        self._length -= 1
        if waiting:
            self._items.move_to_end(party)
        else:
            del self._items[party]
        return item

    def clear(self) -> list[Item]:
        """All items, those of one party in order; none are left."""
        return [self.pop() for _ in range(self._length)]
