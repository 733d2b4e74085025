"""Upkeep, beside the calls: next times that were reckoned on grounds that do not hold any more are reckoned anew, and
firings that are not kept any longer are removed.

Such grounds are zone data of another version, which is looked for at a start, and a clock that was ahead and was set back,
which is looked for at a start and each minute: without that, schedules would wait until the time that the clock has shown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from blobhub_server.background import Turns
from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import StorageUnavailable
from blobhub_server.scheduler.arming import DUE, Arming
from blobhub_server.scheduler.retention import Retention
from blobhub_server.scheduler.rules.document import ScheduleDocument
from blobhub_server.scheduler.rules.schedule import Schedule, ScheduleVersion
from blobhub_server.scheduler.store import due as due_store
from blobhub_server.scheduler.store import reckoning as store
from blobhub_server.scheduler.store import schedule as schedule_store
from blobhub_server.scheduler.store import version as version_store
from blobhub_server.scheduler.store.reckoning import Reckoned
from blobhub_server.scheduler.timetable import TZDATA_VERSION

log = structlog.get_logger()

LOOK_SECONDS = 60.0
"""How often it is looked at the clock, and for firings to remove."""
RETRY_SECONDS = 1.0
"""How long what is done beside the calls waits for a database that is away."""
TOLERANCE = timedelta(minutes=1)
"""How far clocks may be apart: so far ahead the clock of another server may have been, and that is no reason."""
BATCH = 10
"""How many are reckoned anew in a transaction. Others wait for it, so it has to be short."""
FOUND = 1_000
"""How many are looked up at once."""

_PARTY = ("", "schedules")
"""Who this is where it takes turns."""
_FIRST = Reckoned(next_due_time=datetime.fromtimestamp(0, UTC), id="")
_SMALLEST = timedelta(microseconds=1)


class Upkeep:
    """Reckons next times anew, and has old firings removed."""

    def __init__(self, host: Host, arming: Arming, retention: Retention) -> None:
        self._host = host
        self._arming = arming
        self._retention = retention
        self._serving = asyncio.Event()

    def on_serving(self) -> None:
        """Begin: the server answers calls by now."""
        self._serving.set()

    async def run(self) -> None:
        """Look for what is to be done, for ever."""
        await self._serving.wait()
        await self._do(self._renew_zone_data)
        while True:
            await self._do(self._renew_ahead)
            await self._do(self._retention.remove_old)
            await self._do(self._retention.remove_surplus)
            await asyncio.sleep(LOOK_SECONDS)

    async def _do(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
                return
            except StorageUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("upkeep_failed", work=getattr(work, "__name__", ""))
                return

    async def _renew_zone_data(self) -> None:
        """Reckon anew, with the zone data of today, what was reckoned with other data; what is due first comes first."""
        async with self._host.db.read() as tx:
            versions = await store.zone_data_versions(tx)
        if versions <= {TZDATA_VERSION}:
            return
        after = _FIRST
        while True:
            async with self._host.db.scan(_PARTY, patient=True) as tx:
                found = await store.list_reckoned_otherwise(tx, TZDATA_VERSION, after, FOUND)
            if not found:
                return
            await self._renew([each.id for each in found])
            after = found[-1]

    async def _renew_ahead(self) -> None:
        """Reckon anew what was reckoned from a time that has not come."""
        while True:
            async with self._host.db.read() as tx:
                found = await store.list_reckoned_after(tx, self._host.clock() + TOLERANCE, FOUND)
            if not found:
                return
            await self._renew(found)

    async def _renew(self, schedule_ids: Sequence[str]) -> None:
        for start in range(0, len(schedule_ids), BATCH):
            part, begin = schedule_ids[start : start + BATCH], time.monotonic()
            await self._host.db.transact(partial(self._renew_some, schedule_ids=part))
            # There may be a million, and none is urgent: calls have at least half of the time.
            await asyncio.sleep(time.monotonic() - begin)

    async def _renew_some(self, tx: Transaction, schedule_ids: Sequence[str]) -> None:
        schedules = await due_store.lock(tx, schedule_ids)
        versions = await version_store.get_some(tx, {each.version_id for each in schedules if each.version_id})
        now, turns, sooner = self._host.clock(), Turns(), False
        for schedule in schedules:
            before = schedule.next_due_time
            self._renew_one(schedule, versions.get(schedule.version_id or ""), now)
            sooner |= schedule.next_due_time is not None and (before is None or schedule.next_due_time < before)
            await turns.pause()
        await schedule_store.update(tx, schedules)
        if sooner:
            await self._host.bell.ring_after_commit(tx, [DUE])

    def _renew_one(self, schedule: Schedule, version: ScheduleVersion | None, now: datetime) -> None:
        """Reckon the next time from now on. One that has come is not taken back, also when its jitter has not passed."""
        due, nominal = schedule.next_due_time, schedule.next_nominal_time
        # The document of a schedule whose blob was deleted may be collected already.
        if version is not None and (due is None or due > now):
            after = now if nominal is None else min(now, nominal - _SMALLEST)
            self._arming.set_next(schedule, ScheduleDocument.read(version.document), after)
        schedule.tzdata = TZDATA_VERSION
        schedule.reckon_time = min(now, schedule.reckon_time or now)
