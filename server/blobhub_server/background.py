"""Work beside the calls: tasks that run until a block is left, what no cancellation stops, long work, and who is next."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

Item = TypeVar("Item")

Result = TypeVar("Result")

TURN_SECONDS = 0.001
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


async def uninterrupted(work: Awaitable[Result]) -> Result:
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


async def one_ahead(work: Iterable[Callable[[], Coroutine[Any, Any, Result]]]) -> AsyncGenerator[Result, None]:
    """What each of these gives, in order. While one is used, the next is under way."""
    ahead: asyncio.Task[Result] | None = None
    try:
        for each in work:
            begun, ahead = ahead, asyncio.create_task(each())
            if begun is not None:
                yield await begun
        if ahead is not None:
            yield await ahead
    finally:
        if ahead is not None and not ahead.done():
            await asyncio.wait({ahead})  # Threads cannot be ended, and whoever is done wants to leave nothing behind.
        if ahead is not None and not ahead.cancelled():
            ahead.exception()  # or asyncio would log it


class _Slices:
    """Whose turn it is to hold an event loop. Those who wait for theirs have one each, in the order they came.

    An iteration of the loop has one turn, however many wait: else a call, which takes some iterations, would wait for a turn
    of each of them in each. What is short has its turn at once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._end = 0.0
        self._given = False  # in this iteration
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def pause(self) -> None:
        if time.monotonic() < self._end:
            return
        if not self._given and not self._waiting:
            self._begin()
            return
        turn = self._loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._give)
        await turn

    def _begin(self) -> None:
        self._end, self._given = time.monotonic() + TURN_SECONDS, True
        self._loop.call_soon(self._iterate)

    def _iterate(self) -> None:
        self._given = False

    def _give(self) -> None:
        """Give the next one its turn."""
        turn = self._waiting.popleft()
        while turn.done() and self._waiting:  # Its task was cancelled.
            turn = self._waiting.popleft()
        if not turn.done():
            turn.set_result(None)
            self._begin()
        if self._waiting:
            self._loop.call_soon(self._give)


_slices: WeakKeyDictionary[asyncio.AbstractEventLoop, _Slices] = WeakKeyDictionary()


class Turns:
    """Breaks long work up, so that whatever else waits for the event loop has its turn in between.

    `await turns.pause()` lets others have their turn, unless one has begun just now.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        slices = _slices.get(loop) or _slices.setdefault(loop, _Slices(loop))
        self.pause = slices.pause


async def in_turns(make: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What `make` makes of each item, in turns."""
    turns, made = Turns(), []
    for item in items:
        made.append(make(item))
        await turns.pause()
    return made


class Rounds(Generic[Item]):
    """A queue that goes round: it gives one item of each party, then another one of each; those of one party in order.

    With several functions, those of one party by the first go round by the next: organizations, and callers in each.
    """

    def __init__(self, party: Callable[[Item], Hashable], *further: Callable[[Item], Hashable]) -> None:
        self._party = party
        self._further = further
        self._queues: OrderedDict[Hashable, deque[Item] | Rounds[Item]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, item: Item) -> None:
        """Queue an item. A party that has none waiting comes last in the round."""
        party = self._party(item)
        if party not in self._queues:
            self._queues[party] = Rounds(*self._further) if self._further else deque()
        self._queues[party].append(item)
        self._length += 1

    def popleft(self) -> Item:
        """The next item. Raises StopIteration when there is none."""
        party = next(iter(self._queues))
        item = self._queues[party].popleft()
        self._queues.move_to_end(party)
        self._shorten(party)
        return item

    def pop_of_most(self) -> Item:
        """The last item of the party that has the most. Raises ValueError when there is none."""
        party = max(self._queues, key=lambda party: len(self._queues[party]))
        queue = self._queues[party]
        item = queue.pop_of_most() if isinstance(queue, Rounds) else queue.pop()
        self._shorten(party)
        return item

    def remove(self, item: Item) -> None:
        """Take an item out of the queue. Raises KeyError or ValueError when it is not there."""
        party = self._party(item)
        self._queues[party].remove(item)
        self._shorten(party)

    def clear(self) -> list[Item]:
        """All items, those of one party in order; none are left."""
        return [self.popleft() for _ in range(self._length)]

    def _shorten(self, party: Hashable) -> None:
        """Note that a party has an item less."""
        self._length -= 1
        if not self._queues[party]:
            del self._queues[party]
