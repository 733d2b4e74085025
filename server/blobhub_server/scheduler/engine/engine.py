"""The engine of a server: it sleeps until a schedule is due, and takes what is.

It never polls. It sleeps until the earliest time that any schedule is due at, which is one read of an index, and is rung
when a schedule is created or changed, here or on another server. A long sleep is cut, because the clock of the wall may be
set while the clock that sleeps are measured by goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from itertools import count

import structlog

from blobhub_server.background import in_background
from blobhub_server.blobtypes.capabilities import Invocable, InvocationResult
from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.db.notify import Listener
from blobhub_server.errors import StorageUnavailable
from blobhub_server.scheduler.arming import DUE, Arming
from blobhub_server.scheduler.engine.backfill import Backfills, Range, Step
from blobhub_server.scheduler.engine.batch import Batches
from blobhub_server.scheduler.engine.due_queue import DueQueue
from blobhub_server.scheduler.engine.log import FiringLog
from blobhub_server.scheduler.engine.preparing import Preparing
from blobhub_server.scheduler.engine.tails import Tails
from blobhub_server.scheduler.rules.firing import Firing
from blobhub_server.scheduler.store import due as store
from blobhub_server.scheduler.store.due import DueSchedule

log = structlog.get_logger()

MAX_SLEEP_SECONDS = 60.0
"""After so long the engine looks again, whatever it slept for: so late is it told that the clock was set."""
MAX_BATCH = 64
"""How many schedules a transaction takes. Others wait for it, so it has to be short: it takes 0.2 ms for each."""
MAX_AT_ONCE = 3 * MAX_BATCH
"""How many schedules are taken out of the queue at once. Others whose time comes meanwhile wait for them."""
MAX_FOUND = 1_000
"""How many schedules of which a time waits are looked up at once."""
MIN_RETRY_SECONDS = 1.0
"""How long to wait for schedules that are due and that another server has locked; twice as long each time."""


class Engine:
    """Fires schedules. `tails` has the last lines of the logs of firings that are watched here."""

    def __init__(self, host: Host, invocable: Invocable, arming: Arming) -> None:
        self._host = host
        self._invocable = invocable
        self.tails = Tails(host.bell)
        self._log = FiringLog(host.bell, self.tails)
        self._batches = Batches(host, invocable, arming, self._log, self._look_at_queued)
        self._backfills = Backfills(host, self._batches)
        self._preparing = Preparing(host, invocable)
        self._maybe_free: set[str] = set()  # schedules of which a time may wait for an execution that has ended
        self._looked = host.clock()  # until when it was looked at what is due
        self._serving = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Fire until left, from `on_serving` on."""
        self._invocable.listen(self._on_end)
        try:
            async with in_background(self._run(), "schedules"):
                yield
        finally:
            await self._preparing.close()

    def on_serving(self) -> None:
        """Begin to fire: the server answers calls by now."""
        self._serving.set()

    async def trigger(self, tx: Transaction, schedule_id: str, version_id: str) -> Firing:
        """Fire a schedule now, as a part of a transaction, if a document is the one that is at work; return the firing.

        Raises ScheduleNotArmed.
        """
        return await self._batches.trigger(tx, schedule_id, version_id)

    def backfill(self, wanted: Range) -> AsyncIterator[Step]:
        """Fire what is missing in a range of the past, as `Backfills.run` says."""
        return self._backfills.run(wanted)

    async def _on_end(self, tx: Transaction, ended: Sequence[InvocationResult]) -> None:
        """Keep how executions have ended, with their ends, and then look whether a time waits for that."""
        found = await self._log.end(tx, ended)
        if found:
            schedule_ids = {firing.schedule_id for firing in found}
            tx.after_commit(lambda: self._look_at_queued(schedule_ids))

    def _look_at_queued(self, schedule_ids: Collection[str]) -> None:
        self._maybe_free.update(schedule_ids)
        self._host.bell.ring(DUE)

    async def _run(self) -> None:
        await self._serving.wait()
        async with self._host.bell.listen(DUE) as listener:
            for attempt in count():
                try:
                    await self._work_forever(listener)
                except StorageUnavailable as error:
                    self._host.db.trouble.report(error)
                except Exception:
                    log.exception("schedules_not_fired")
                await self._host.db.trouble.pause(attempt)

    async def _work_forever(self, listener: Listener) -> None:
        fruitless = 0
        looked_at = -MAX_SLEEP_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            if loop.time() - looked_at >= MAX_SLEEP_SECONDS:
                await self._find_queued()
                looked_at = loop.time()
            await self._free_queued()
            due, taken = await self._take_due()
            if taken:
                fruitless = 0
                continue
            fruitless = fruitless + 1 if due else 0
            await listener.wait(await self._sleep_seconds(fruitless))

    async def _take_due(self) -> tuple[int, int]:
        """Take what is due now, in turns by organization; how many that seemed to be, and how many were taken."""
        self._looked = self._host.clock()
        async with self._host.db.read() as tx:
            due = await store.peek(tx, self._looked, MAX_BATCH + 1)
        if len(due) <= MAX_BATCH:
            return len(due), await self._take(due)
        queue, seemed, taken = DueQueue(self._host.db, self._host.clock), 0, 0
        # All fire before most of what they start runs, or each firing would be late for the executions of those before it.
        with self._invocable.deferred():
            await queue.fill()
            while due := await queue.take(MAX_AT_ONCE):
                seemed, taken = seemed + len(due), taken + await self._take(due)
        return seemed, taken

    async def _take(self, due: Sequence[DueSchedule]) -> int:
        """Take schedules in their order, so many to a transaction; how many were taken."""
        ready, taken = await self._preparing.ready(due), 0
        for start in range(0, len(ready), MAX_BATCH):
            taken += await self._batches.take_due(ready[start : start + MAX_BATCH])
            await self._free_queued()
        return taken

    async def _sleep_seconds(self, fruitless: int) -> float:
        """For how long nothing is due, as far as is known, but for what could not be taken; that is tried again."""
        most = min(MIN_RETRY_SECONDS * (1 << min(fruitless - 1, 16)), MAX_SLEEP_SECONDS) if fruitless else MAX_SLEEP_SECONDS
        async with self._host.db.read() as tx:
            due = await store.next_due_time(tx, self._looked if fruitless else store.BEGINNING[0])
        if due is None:
            return most
        return min(max((due - self._host.clock()).total_seconds(), 0.0), most)

    async def _find_queued(self) -> None:
        """Look at all schedules of which a time waits, in case that an end was not heard: its server ended, say."""
        after = ""
        while True:
            async with self._host.db.read() as tx:
                found = await store.list_queued(tx, after, MAX_FOUND)
            if not found:
                return
            self._maybe_free.update(found)
            after = found[-1]

    async def _free_queued(self) -> None:
        """Fire the times that waited for ends that have come."""
        while self._maybe_free:
            part = sorted(self._maybe_free)[:MAX_BATCH]
            self._maybe_free.difference_update(part)
            try:
                # Read first: of most nothing waits, and a transaction keeps other writers waiting. What is queued from
                # now on is looked at once that is committed.
                async with self._host.db.read() as tx:
                    queued = await store.among_queued(tx, part)
                if queued:
                    await self._batches.take_queued(queued)
            except StorageUnavailable:
                self._maybe_free.update(part)
                raise
