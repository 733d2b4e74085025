"""Takes schedules that are due, some in one transaction: claims them, starts what they start, and records it.

All of that is in the transaction, so a server that ends or freezes anywhere in it loses nothing and doubles nothing: the
schedules are due as before, and another server takes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from blobhub_server.background import Turns
from blobhub_server.blobtypes.capabilities import Invocable
from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import StorageUnavailable
from blobhub_server.scheduler.arming import Arming
from blobhub_server.scheduler.engine import firings
from blobhub_server.scheduler.engine.decision import Fire, PassOver, decide
from blobhub_server.scheduler.engine.firings import Armed
from blobhub_server.scheduler.engine.log import FiringLog
from blobhub_server.scheduler.engine.take import Take, take_queued
from blobhub_server.scheduler.errors import BackfillRefused, ScheduleNotArmed
from blobhub_server.scheduler.rules.document import Overlap
from blobhub_server.scheduler.rules.firing import Firing, FiringKind, FiringStatus
from blobhub_server.scheduler.rules.schedule import Schedule
from blobhub_server.scheduler.rules.state import require_known
from blobhub_server.scheduler.store import due as due_store
from blobhub_server.scheduler.store import firing as firing_store
from blobhub_server.scheduler.store import firing_log as log_store
from blobhub_server.scheduler.store import schedule as schedule_store
from blobhub_server.scheduler.store import version as version_store

log = structlog.get_logger()

Work = Callable[[Transaction, Sequence[str], bool], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Backfilled:
    """How many times a transaction has backfilled, and those that are missing yet."""

    fired: int
    left: Sequence[datetime]


class Batches:
    """Takes schedules in transactions of their own.

    `on_queued` is called after the commit with schedules of which a time waits for the end of an execution, which may have
    come meanwhile.
    """

    def __init__(
        self,
        host: Host,
        invocable: Invocable,
        arming: Arming,
        firing_log: FiringLog,
        on_queued: Callable[[Collection[str]], None],
    ) -> None:
        self._host = host
        self._invocable = invocable
        self._arming = arming
        self._log = firing_log
        self._on_queued = on_queued

    async def take_due(self, schedule_ids: Sequence[str]) -> int:
        """Take the next time of those schedules that are due and not locked; how many that were.

        Raises StorageUnavailable.
        """

        async def work(tx: Transaction, ids: Sequence[str], broken: bool) -> int:
            return await self._take_due(tx, ids, self._host.clock(), broken=broken)

        return await self._transact(schedule_ids, work)

    async def take_queued(self, schedule_ids: Sequence[str]) -> int:
        """Fire the times that waited for the end of an execution, of those schedules of which nothing runs any more.

        Returns how many that were. Raises StorageUnavailable.
        """

        async def work(tx: Transaction, ids: Sequence[str], broken: bool) -> int:
            return await self._take_queued(tx, ids, self._host.clock(), broken=broken)

        return await self._transact(schedule_ids, work)

    async def trigger(self, tx: Transaction, schedule_id: str, version_id: str) -> Firing:
        """Fire a schedule now, as a part of a transaction, if a document is the one that is at work; return the firing.

        Raises ScheduleNotArmed.
        """
        armed = await self._require_armed(tx, schedule_id, version_id)
        take = await self._new_take(tx, [armed], self._host.clock(), broken=False)
        firing = take.new_firing(armed, FiringKind.TRIGGERED, take.now)
        if take.is_free(armed):
            take.to_invoke.append((armed, firing))
        else:
            take.told.append(firings.overlapping(firing))
        await take.perform(tx, self._invocable)
        (told,) = await self._store(tx, take, [armed.schedule])
        return told

    async def backfill(self, tx: Transaction, schedule_id: str, version_id: str, times: Sequence[datetime]) -> Backfilled:
        """Fire those of some times, which are in order, that are missing, as a part of a transaction.

        Where the overlap policy is not ALLOW it fires one, and none while something runs. Raises ScheduleNotArmed,
        BackfillRefused, BackfillForgotten.
        """
        armed = await self._require_armed(tx, schedule_id, version_id)
        require_known(armed.schedule, armed.timing, times[0])
        take = await self._new_take(tx, [armed], self._host.clock(), broken=False)
        missing = await self._missing(tx, armed.schedule, times)
        one_by_one = armed.document.overlap_policy is not Overlap.ALLOW
        fired = [] if not take.is_free(armed) else missing[:1] if one_by_one else missing
        take.to_invoke.extend((armed, take.new_firing(armed, FiringKind.BACKFILLED, time)) for time in fired)
        await take.perform(tx, self._invocable)
        refused = [each for each in take.told if each.status is not FiringStatus.SUCCESS]
        if refused:
            first = min(refused, key=lambda firing: firing.nominal_time)
            raise BackfillRefused(first.nominal_time, first.reason, first.message)
        if fired:
            last = armed.schedule.last_nominal_time
            armed.schedule.last_nominal_time = fired[-1] if last is None else max(last, fired[-1])
            await self._store(tx, take, [armed.schedule])
        return Backfilled(fired=len(fired), left=missing[len(fired) :])

    async def _missing(self, tx: Transaction, schedule: Schedule, times: Sequence[datetime]) -> list[datetime]:
        """Those of some times of a locked schedule that have started nothing, and are not to have their turn yet."""
        there = await log_store.find_started(tx, schedule.id, times[0], times[-1]) | {schedule.queued_nominal_time}
        to_come = schedule.next_nominal_time
        return [time for time in times if time not in there and (to_come is None or time < to_come)]

    async def _require_armed(self, tx: Transaction, schedule_id: str, version_id: str) -> Armed:
        """Lock a schedule of which a document is the one that is at work. Raises ScheduleNotArmed."""
        every = await self._armed(tx, await due_store.lock(tx, [schedule_id]))
        if not every or every[0].version.id != version_id:
            raise ScheduleNotArmed
        return every[0]

    async def _transact(self, schedule_ids: Sequence[str], work: Work) -> int:
        """Do work in a transaction. Where that fails, each half has one of its own, so that a bad schedule fails alone."""
        try:
            return await self._host.db.transact(lambda tx: work(tx, schedule_ids, False))
        except StorageUnavailable:
            raise
        except Exception:
            half = len(schedule_ids) // 2
            if half:
                return await self._transact(schedule_ids[:half], work) + await self._transact(schedule_ids[half:], work)
            log.exception("firing_failed", schedule_id=schedule_ids[0])
        try:
            return await self._host.db.transact(lambda tx: work(tx, schedule_ids, True))
        except StorageUnavailable:
            raise
        except Exception:
            log.exception("firing_not_recorded", schedule_id=schedule_ids[0])
            return 0

    async def _take_due(self, tx: Transaction, schedule_ids: Sequence[str], now: datetime, *, broken: bool) -> int:
        claimed = await due_store.claim(tx, schedule_ids, now)
        gone = [schedule for schedule, is_there in claimed if not is_there]
        every = await self._armed(tx, [schedule for schedule, is_there in claimed if is_there])
        take = await self._new_take(tx, every, now, broken=broken)
        decided, turns = [], Turns()
        for armed in every:
            decided.append((armed, _decide(armed, now)))
            await turns.pause()
        # What comes again only after a clock was set back has had its turn.
        again = await log_store.find_fired(
            tx, [(*_key(armed, decision), _kind(decision)) for armed, decision in decided if _old(armed, decision)]
        )
        for armed, decision in decided:
            await turns.pause()
            if _key(armed, decision) not in again and not _is_over(armed.schedule, _time(decision)):
                _tell(take, armed, decision)
        await take.perform(tx, self._invocable)
        for armed, decision in decided:
            self._advance(armed, _time(decision))
            await turns.pause()
        for schedule in gone:  # It waits to be collected, and is due no more until then.
            schedule.next_nominal_time = schedule.next_due_time = None
        await self._store(tx, take, [*(armed.schedule for armed in every), *gone])
        return len(claimed)

    async def _take_queued(self, tx: Transaction, schedule_ids: Sequence[str], now: datetime, *, broken: bool) -> int:
        locked = await due_store.lock_queued(tx, schedule_ids)
        every = [*await self._armed(tx, locked), *await self._disarmed(tx, locked)]
        take = await self._new_take(tx, every, now, broken=broken)
        taken = []
        for armed in every:
            if take.is_running(armed):
                continue
            waiting = take_queued(armed)
            assert waiting is not None, "it was locked for that"
            firing = take.new_firing(armed, *waiting)
            if armed.schedule.waits_for_time:
                take.to_invoke.append((armed, firing))
            else:
                message = (
                    "while the time waited for the end of an execution, the schedule was paused, disabled, or taken out"
                )
                take.told.append(firings.skipped(firing, firings.NOT_ARMED, message))
            taken.append(armed.schedule)
        await take.perform(tx, self._invocable)
        await self._store(tx, take, taken)
        return len(taken)

    async def _armed(self, tx: Transaction, schedules: Sequence[Schedule]) -> list[Armed]:
        """Schedules with their documents. One that was disarmed has none and is not among them."""
        armed, turns = [], Turns()
        await turns.pause()
        versions = await version_store.get_some(tx, {each.version_id for each in schedules if each.version_id is not None})
        for schedule in schedules:
            if schedule.version_id is None:
                continue
            version = versions[schedule.version_id]
            document, timing = firings.read_document(version.document)
            armed.append(Armed(schedule=schedule, version=version, document=document, timing=timing))
            await turns.pause()
        return armed

    async def _disarmed(self, tx: Transaction, schedules: Sequence[Schedule]) -> list[Armed]:
        """Those of some schedules that were disarmed, with the documents that have started what they started last."""
        disarmed = []
        for schedule in schedules:
            if schedule.version_id is not None or schedule.running_firing_id is None:
                continue
            firing = await firing_store.get(tx, schedule.running_firing_id)
            key = schedule.id, firing.schedule_digest if firing is not None else ""
            version = (await version_store.find_some(tx, [key])).get(key)
            if version is not None:
                document, timing = firings.read_document(version.document)
                disarmed.append(Armed(schedule=schedule, version=version, document=document, timing=timing))
        return disarmed

    async def _new_take(self, tx: Transaction, every: Sequence[Armed], now: datetime, *, broken: bool) -> Take:
        causes = {armed.schedule.running_firing_id for armed in every} - {None}
        found = await self._invocable.find(tx, [cause for cause in causes if cause is not None]) if causes else {}
        running = {cause: result for cause, result in found.items() if result.end_time is None}
        return Take(ids=self._host.ids, now=now, running=running, broken=broken)

    def _advance(self, armed: Armed, after: datetime) -> None:
        schedule = armed.schedule
        last = schedule.last_nominal_time
        schedule.last_nominal_time = after if last is None else max(last, after)
        self._arming.set_next(schedule, armed.document, after, armed.timing)

    async def _store(self, tx: Transaction, take: Take, schedules: Sequence[Schedule]) -> list[Firing]:
        counts = Counter(firing.schedule_id for firing in take.told)
        for schedule in schedules:
            schedule.firing_count += counts[schedule.id]
        await schedule_store.advance(tx, schedules)
        told = await self._log.append(tx, take.told) if take.told else []
        if take.queued:
            tx.after_commit(lambda: self._on_queued(take.queued))
        return told


def _decide(armed: Armed, now: datetime) -> Fire | PassOver:
    schedule = armed.schedule
    nominal_time, due = schedule.next_nominal_time, schedule.next_due_time
    assert nominal_time is not None, "it is due"
    assert due is not None, "it is due"
    return decide(schedule.id, armed.document, armed.timing, nominal_time=nominal_time, due=due, now=now)


def _tell(take: Take, armed: Armed, decision: Fire | PassOver) -> None:
    match decision:
        case Fire():
            take.fire(armed, take.new_firing(armed, _kind(decision), decision.nominal_time))
        case PassOver():
            firing = take.new_firing(armed, _kind(decision), decision.last)
            take.told.append(firings.missed(firing, decision, armed.document.catch_up_policy))


def _time(decision: Fire | PassOver) -> datetime:
    """The last time that is decided on."""
    return decision.nominal_time if isinstance(decision, Fire) else decision.last


def _kind(decision: Fire | PassOver) -> FiringKind:
    """The kind of the firing that tells of it."""
    return decision.kind if isinstance(decision, Fire) else FiringKind.CAUGHT_UP


def _key(armed: Armed, decision: Fire | PassOver) -> tuple[str, datetime]:
    return armed.schedule.id, _time(decision)


def _is_over(schedule: Schedule, nominal_time: datetime) -> bool:
    """Whether a time of which there is no firing has had its turn: it waits, or its firing may have been removed."""
    return nominal_time == schedule.queued_nominal_time or schedule.has_forgotten(nominal_time)


def _old(armed: Armed, decision: Fire | PassOver) -> bool:
    """Whether the time is not after all that had their turn."""
    last = armed.schedule.last_nominal_time
    return last is not None and _time(decision) <= last
