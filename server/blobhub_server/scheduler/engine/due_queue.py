"""The queue of what is due, where that is more than a transaction takes."""

from __future__ import annotations

from datetime import datetime

from blobhub_server.background import Rounds
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database
from blobhub_server.ids import LAST
from blobhub_server.scheduler.store import due as store
from blobhub_server.scheduler.store.due import DueSchedule, Key

MAX_QUEUED = 10_000
"""How many schedules are queued at first, and how many join them while they are taken. Then the queue is begun anew."""

_PARTY = ("", "schedules")
"""Who the engine is where it takes turns."""


class DueQueue:
    """Gives out what is due: one schedule of each organization, then another one of each.

    All that is due is read once, and from then on only what becomes due meanwhile. So the reading grows with what is due,
    and a schedule whose time comes in the middle waits for those that are taken just now, unless its organization has more.
    """

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._rounds: Rounds[DueSchedule] = Rounds(lambda schedule: schedule.organization_id)
        self._seen: Key = store.BEGINNING
        self._room = MAX_QUEUED

    async def fill(self) -> None:
        """Queue what is due."""
        now = self._clock()
        async with self._db.scan(_PARTY, patient=True) as tx:
            for schedule in await store.peek_in_turns(tx, now, MAX_QUEUED):
                self._rounds.append(schedule)
        self._seen = now, LAST

    async def take(self, count: int) -> list[DueSchedule]:
        """Take so many out of the queue; fewer when that is all, and none when the queue is to be begun anew."""
        await self._join(self._clock(), count)
        return [self._rounds.popleft() for _ in range(min(count, len(self._rounds)))]

    async def _join(self, now: datetime, count: int) -> None:
        """Queue some of what has become due since it was looked at last."""
        if not self._rounds or not self._room:
            return
        async with self._db.read() as tx:
            came = await store.peek(tx, now, min(count, self._room), self._seen)
        self._room -= len(came)
        for schedule in came:
            self._rounds.append(schedule)
            self._seen = schedule.next_due_time, schedule.id
