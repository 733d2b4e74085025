"""Retention: firings that are old, or too many of one schedule, are removed, beside the calls and some to a transaction.

What a removed firing knew is kept in two places. Its schedule's row says up to which time firings may be gone: no such time
fires or is backfilled again. The log of its blob says with which number it begins: nobody resumes a watch before that.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from blobhub_server.blobtypes.capabilities import Invocable
from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.ids import NOTHING, first_id
from blobhub_server.scheduler.rules.firing import Firing, FiringKind
from blobhub_server.scheduler.settings import SchedulerSettings
from blobhub_server.scheduler.store import due as due_store
from blobhub_server.scheduler.store import retention as store
from blobhub_server.scheduler.store import schedule as schedule_store
from blobhub_server.scheduler.store.retention import CountedSchedule

ROWS = 100
"""How many firings a transaction removes at most. Others wait for it, so it has to be short."""
FOUND = 100
"""How many schedules that have too many firings are looked up at once."""
LEAST_AGE = timedelta(hours=1)
"""Nothing younger is removed, however much there is: watches that were cut off resume, and backfills tell what they did."""

_PARTY = ("", "schedules")
"""Who this is where it takes turns."""


class Retention:
    """Removes firings that are not kept any longer."""

    def __init__(self, host: Host, invocable: Invocable, settings: SchedulerSettings) -> None:
        self._host = host
        self._invocable = invocable
        self._max_age = max(timedelta(days=settings.firing_retention_days), LEAST_AGE)
        self._max_count = settings.max_firings_per_schedule

    async def remove_old(self) -> None:
        """Remove what ended too long ago."""
        end, after = self._host.clock() - self._max_age, NOTHING
        while True:
            async with self._host.db.scan(_PARTY, patient=True) as tx:
                found = await store.list_between(tx, after=after, end=first_id(end), limit=ROWS)
            if not found:
                return
            await self._remove(found, end)
            after = found[-1]

    async def remove_surplus(self) -> None:
        """Remove the oldest firings of schedules that have too many."""
        after = CountedSchedule(firing_count=self._max_count, id="")
        surplus: list[str] = []
        while True:
            async with self._host.db.scan(_PARTY, patient=True) as tx:
                longer = await store.list_longer(tx, self._max_count, after, FOUND)
            for schedule in longer:
                surplus = await self._remove_surplus_of(schedule, surplus)
            if not longer:
                break
            after = longer[-1]
        await self._remove(surplus, self._host.clock() - LEAST_AGE)

    async def _remove_surplus_of(self, schedule: CountedSchedule, surplus: list[str]) -> list[str]:
        """Remove what a schedule has too many. Takes and returns ids that are left, for a transaction together."""
        left, after = schedule.firing_count - self._max_count, 0
        while left:
            async with self._host.db.read() as tx:
                found = await store.list_oldest(tx, schedule.id, after=after, limit=min(left, ROWS - len(surplus)))
            if not found:
                break
            surplus, left, after = [*surplus, *(each.id for each in found)], left - len(found), found[-1].sequence
            if len(surplus) == ROWS:
                await self._remove(surplus, self._host.clock() - LEAST_AGE)
                surplus = []
        return surplus

    async def _remove(self, firing_ids: Sequence[str], end: datetime) -> None:
        """Remove those of some firings that may go, and rest as long as that took: none is urgent, and calls come first."""
        if firing_ids:
            begin = time.monotonic()
            await self._host.db.transact(partial(self._remove_some, firing_ids=firing_ids, end=end))
            await asyncio.sleep(time.monotonic() - begin)

    async def _remove_some(self, tx: Transaction, firing_ids: Sequence[str], end: datetime) -> None:
        # The order of locks is that of whoever fires or ends a firing: schedules, firings, logs.
        schedules = await due_store.lock(tx, await store.schedules_of(tx, firing_ids))
        removed = await self._removable(tx, await store.lock(tx, firing_ids), end)
        await store.delete(tx, [firing.id for firing in removed])
        counts = Counter(firing.schedule_id for firing in removed)
        times, firsts = _last_times(removed), defaultdict[str, int](int)
        changed = [schedule for schedule in schedules if counts[schedule.id]]
        for schedule in changed:
            schedule.firing_count -= counts[schedule.id]
            if schedule.id in times and not schedule.has_forgotten(times[schedule.id]):
                schedule.forgotten_nominal_time = times[schedule.id]
        await schedule_store.update(tx, changed)
        for firing in removed:
            firsts[firing.blob_id] = max(firsts[firing.blob_id], firing.sequence + 1, (firing.end_sequence or 0) + 1)
        await store.set_first_numbers(tx, firsts)

    async def _removable(self, tx: Transaction, firings: Sequence[Firing], end: datetime) -> list[Firing]:
        """Those of some firings that were over before an instant, their executions included.

        An execution that was deleted has no end that is written to its firing, so what becomes of it is asked for. What
        fired while the clock was ahead stays until that time has really come: to forget such a time would keep all before
        it from firing.
        """
        unended = [firing.id for firing in firings if firing.execution_id is not None and firing.end_time is None]
        found = await self._invocable.find(tx, unended) if unended else {}
        running = {cause for cause, result in found.items() if result.end_time is None}
        return [
            firing
            for firing in firings
            if firing.fire_time < end and (firing.end_time or firing.fire_time) < end and firing.id not in running
        ]


def _last_times(firings: Sequence[Firing]) -> dict[str, datetime]:
    """The last time of each schedule that is among some firings. What somebody triggered is for no time of its schedule."""
    found: dict[str, datetime] = {}
    for firing in firings:
        if firing.kind is not FiringKind.TRIGGERED:
            found[firing.schedule_id] = max(found.get(firing.schedule_id, firing.nominal_time), firing.nominal_time)
    return found
