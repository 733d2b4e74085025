"""Backfills: the missing times of a range of one schedule fire, some to a transaction, and are told of as they do.

Nothing is kept of a backfill but its firings. So it may end anywhere: whoever asks again goes on with what is missing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from blobhub_server.background import Turns, uninterrupted
from blobhub_server.blobtypes.contract import Host
from blobhub_server.rpc.transport_error import ShuttingDown
from blobhub_server.scheduler.engine.batch import Backfilled, Batches
from blobhub_server.scheduler.engine.tails import topic
from blobhub_server.scheduler.errors import BackfillRefused
from blobhub_server.scheduler.rules.firing import Firing
from blobhub_server.scheduler.rules.timing import Timing
from blobhub_server.scheduler.store import firing_log as log_store

MAX_FIRINGS = 1_000
"""How many times one call fires."""
MAX_RANGE = timedelta(days=366)
"""From when to when one call goes."""
PART = 200
"""How many times of a timetable are looked up at once."""
MAX_BATCH = 25
"""How many times a transaction fires. Others wait for it, so it has to be short."""
_SMALLEST = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The times of one document of a schedule, from `start` to `end`, both included."""

    blob_id: str
    schedule_id: str
    version_id: str
    timing: Timing
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Step:
    """What a backfill has come to: firings in the order of time, and where something may be missing yet; None at the end.

    No firings before the end mean that it waits.
    """

    firings: Sequence[Firing]
    next_time: datetime | None


class Backfills:
    """Fires missing times."""

    def __init__(self, host: Host, batches: Batches) -> None:
        self._host = host
        self._batches = batches

    async def run(self, wanted: Range) -> AsyncIterator[Step]:
        """Fire what is missing in a range, and tell of all of it that was ever backfilled.

        Raises ScheduleNotArmed, BackfillRefused, BackfillForgotten, ShuttingDown.
        """
        budget = MAX_FIRINGS
        async with self._host.bell.listen(topic(wanted.blob_id)) as listener:
            async for times in _parts(wanted):
                untold, left = times[0], await self._missing(wanted, times)
                while left:
                    if self._host.drain.draining:
                        raise ShuttingDown(0)
                    if budget == 0:
                        yield Step(await self._told(wanted, untold, left[0] - _SMALLEST), left[0])
                        return
                    batch = left[: min(MAX_BATCH, budget)]
                    done = await uninterrupted(self._fire(wanted, batch))
                    budget -= done.fired
                    left = [*done.left, *left[len(batch) :]]
                    told_until = left[0] - _SMALLEST if left else times[-1]
                    if done.fired == 0 and done.left and not await listener.wait(self._host.settings.progress_seconds):
                        yield Step([], left[0])
                    if told := await self._told(wanted, untold, told_until):
                        yield Step(told, told_until + _SMALLEST)
                    untold = told_until + _SMALLEST
                if told := await self._told(wanted, untold, times[-1]):
                    yield Step(told, times[-1] + _SMALLEST)
        yield Step([], None)

    async def _fire(self, wanted: Range, times: Sequence[datetime]) -> Backfilled:
        """Fire some times in a transaction; where one is refused, those before it."""

        async def work(some: Sequence[datetime]) -> Backfilled:
            return await self._host.db.transact(
                lambda tx: self._batches.backfill(tx, wanted.schedule_id, wanted.version_id, some)
            )

        try:
            return await work(times)
        except BackfillRefused as error:
            before = [time for time in times if time < error.nominal_time]
            if not before:
                raise
            done = await work(before)
            return Backfilled(fired=done.fired, left=[*done.left, *times[len(before) :]])

    async def _missing(self, wanted: Range, times: Sequence[datetime]) -> list[datetime]:
        async with self._host.db.read() as tx:
            there = await log_store.find_started(tx, wanted.schedule_id, times[0], times[-1])
        return [time for time in times if time not in there]

    async def _told(self, wanted: Range, start: datetime, end: datetime) -> list[Firing]:
        async with self._host.db.read() as tx:
            return await log_store.list_backfilled(tx, wanted.schedule_id, start, end)


async def _parts(wanted: Range) -> AsyncIterator[list[datetime]]:
    """The times of a range, in order, some at once."""
    part: list[datetime] = []
    turns = Turns()
    for time in wanted.timing.between(wanted.start - _SMALLEST, wanted.end):
        part.append(time)
        if len(part) == PART:
            yield part
            part = []
        await turns.pause()
    if part:
        yield part
