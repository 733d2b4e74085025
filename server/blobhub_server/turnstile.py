"""Turns at what is scarce: so many at once, and those who wait go round, so that whoever asks often crowds out nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

from blobhub_server.background import Rounds
from blobhub_server.errors import Overloaded
from blobhub_server.scarcity import Threads

Result = TypeVar("Result")

Party = tuple[str, str]
"""Who waits: whose they are, such as an organization, and who of them."""

IN_PLACE_BYTES = 16 << 10
"""How much is gone over on the event loop: JSON of so many bytes takes 2 ms to read and check at the worst,
and most a fifth of that. A hop to a thread and back takes 0.2–0.6 ms."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    party: Party
    turn: asyncio.Future[None]


class Turnstile:
    """Lets so many in at once. Those who wait go round by their groups, and in each group by who they are.

    At most `max_waiting` wait, if that is given. Where one more comes, the last is refused of whoever has the most waiting,
    in the group that has the most: so nobody is refused because of others who ask more often.
    """

    def __init__(self, at_once: int, *, max_waiting: int | None = None) -> None:
        self._free = at_once
        self._max_waiting = max_waiting
        self._waiting: Rounds[_Waiter] = Rounds(lambda waiter: waiter.party[0], lambda waiter: waiter.party[1])

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def enter(self, party: Party) -> None:
        """Wait for a turn, which lasts until `leave`. There is none where it raises Overloaded, or is cancelled."""
        if self._free:
            self._free -= 1
            return
        waiter = _Waiter(party=party, turn=asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        if self._max_waiting is not None and len(self._waiting) > self._max_waiting:
            refused = self._waiting.pop_of_most().turn
            if not refused.done():  # It was not cancelled a moment ago.
                refused.set_exception(Overloaded())
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.cancelled():
                with suppress(KeyError, ValueError):  # Its turn may have come in the meantime, and gone to the next.
                    self._waiting.remove(waiter)
            elif waiter.turn.exception() is None:  # The turn has come, and is not taken.
                self.leave()
            raise

    def leave(self) -> None:
        """Give a turn that has ended to whoever is next."""
        while self._waiting:
            turn = self._waiting.popleft().turn
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    @asynccontextmanager
    async def turn(self, party: Party) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block is left. Raises Overloaded."""
        await self.enter(party)
        try:
            yield
        finally:
            self.leave()

    async def run(self, party: Party, work: Callable[[], Result], executor: Executor | None = None) -> Result:
        """What `work` returns or raises; done in a thread, in a turn. Raises Overloaded.

        A caller that goes away does not end the thread, and the turn lasts as long as that.
        """
        await self.enter(party)
        try:
            working = asyncio.get_running_loop().run_in_executor(executor, work)
        except BaseException:
            self.leave()
            raise
        working.add_done_callback(self._after_work)
        try:
            return await asyncio.shield(working)
        finally:
            del working  # The traceback of its error leads here: a cycle, which would hold what was worked on.

    def _after_work(self, working: asyncio.Future[Result]) -> None:
        self.leave()
        if not working.cancelled():
            working.exception()  # or asyncio would log that of work whose caller has gone


# One thread, because such work is Python: each thread more would take the interpreter's lock from the event loop once more.
_BESIDE = Threads(max_workers=1, thread_name_prefix="off-loop")
_turnstiles: WeakKeyDictionary[asyncio.AbstractEventLoop, Turnstile] = WeakKeyDictionary()


async def off_loop(size: int, party: Party, work: Callable[[], Result]) -> Result:
    """What `work` returns or raises; called in the one thread beside the loop, by turns, if `size` bytes are many."""
    if size <= IN_PLACE_BYTES:
        return work()
    return await _turnstiles.setdefault(asyncio.get_running_loop(), Turnstile(1)).run(party, work, _BESIDE)
