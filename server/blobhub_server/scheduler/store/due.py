"""Schedules by when they are due: what the engine asks for. Each is found by an index, however many are stored."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import Prepared, is_one_of, lock_rows
from blobhub_server.db.presence import blob_is_there
from blobhub_server.db.records import Mapper, Pair, Scalar
from blobhub_server.db.schema import Time
from blobhub_server.scheduler.rules.schedule import Schedule
from blobhub_server.scheduler.store.schedule import IS_DUE_ONCE, IS_QUEUED, schedules


@dataclass(frozen=True, slots=True)
class DueSchedule:
    """A schedule that is due, and whose it is."""

    id: str
    organization_id: str
    version_id: str
    next_due_time: datetime


_SCHEDULE = Mapper(Schedule, schedules)
_DUE = Mapper(DueSchedule, schedules)
_IS_THERE = blob_is_there(schedules.c.blob_id)
_IS_DUE = sa.and_(IS_DUE_ONCE, schedules.c.next_due_time <= sa.bindparam("now", type_=Time()))
_MOST = sa.bindparam("most", type_=sa.BigInteger)
_ORDER = (schedules.c.next_due_time, schedules.c.id)
_AFTER = sa.tuple_(*_ORDER) > sa.tuple_(sa.bindparam("after_time", type_=Time()), sa.bindparam("after_id"))
# Without a look at their blobs: of deleted ones there may be a million, which would all be passed over on the way to the
# first that is there. Whoever claims them lets go of them.
_PEEK = Prepared(_DUE.select().where(_IS_DUE, _AFTER).order_by(*_ORDER).limit(_MOST), _DUE)
Key = tuple[datetime, str]
"""When a schedule is due, and its id: the order of what is due."""
BEGINNING: Key = (datetime(1970, 1, 1, tzinfo=UTC), "")


async def peek(tx: Transaction, now: datetime, limit: int, after: Key = BEGINNING) -> list[DueSchedule]:
    """Some schedules that are due, those after a key, the longest first. Some may be those of deleted blobs."""
    return await tx.all(_PEEK, now=now, after_time=after[0], after_id=after[1], most=limit)


_TURN = sa.func.row_number().over(partition_by=schedules.c.organization_id, order_by=_ORDER)
_RANKED = sa.select(*_DUE.columns, _TURN.label("turn")).where(_IS_DUE).subquery()
_PEEK_IN_TURNS = Prepared(
    sa.select(*(_RANKED.c[column.name] for column in _DUE.columns))
    .order_by(_RANKED.c.turn, _RANKED.c.next_due_time, _RANKED.c.id)
    .limit(_MOST),
    _DUE,
)


async def peek_in_turns(tx: Transaction, now: datetime, limit: int) -> list[DueSchedule]:
    """Some schedules that are due: one of each organization, then another one of each, and so on.

    It reads all that is due, so it is for the long lane. Some may be those of deleted blobs.
    """
    return await tx.all(_PEEK_IN_TURNS, now=now, most=limit)


_CLAIM = Prepared(
    _SCHEDULE.select(_IS_THERE.label("is_there"))
    .where(is_one_of(schedules.c.id, "ids"), _IS_DUE)
    .order_by(schedules.c.id)
    .with_for_update(key_share=True, skip_locked=True),
    Pair(_SCHEDULE, Scalar(bool, "is_there")),
)


async def claim(tx: Transaction, schedule_ids: Collection[str], now: datetime) -> list[tuple[Schedule, bool]]:
    """Lock those of some schedules that are due, and that nobody else has locked; in the order of their ids.

    Each comes with whether its blob is there. Nobody else claims them until the transaction ends, and it ends with the next
    times that it has written, or as if it had not been.
    """
    return await tx.all(_CLAIM, ids=sorted(schedule_ids), now=now)


_NEXT = Prepared(
    sa.select(schedules.c.next_due_time)
    .where(IS_DUE_ONCE, schedules.c.next_due_time > sa.bindparam("after", type_=Time()))
    .order_by(schedules.c.next_due_time)
    .limit(1),
    Scalar(datetime),
)


async def next_due_time(tx: Transaction, after: datetime) -> datetime | None:
    """When the next schedule after an instant is due; None when none is. It may be one of a deleted blob."""
    return await tx.first(_NEXT, after=after)


_QUEUED = Prepared(
    sa.select(schedules.c.id).where(IS_QUEUED, schedules.c.id > sa.bindparam("after")).order_by(schedules.c.id).limit(_MOST),
    Scalar(str),
)


async def list_queued(tx: Transaction, after: str, limit: int) -> list[str]:
    """Some schedules of which a time waits for the end of an execution, in the order of their ids."""
    return await tx.all(_QUEUED, after=after, most=limit)


_AMONG_QUEUED = Prepared(
    sa.select(schedules.c.id).where(is_one_of(schedules.c.id, "ids"), IS_QUEUED).order_by(schedules.c.id), Scalar(str)
)


async def among_queued(tx: Transaction, schedule_ids: Collection[str]) -> list[str]:
    """Those of some schedules of which a time waits for the end of an execution, in the order of their ids."""
    return await tx.all(_AMONG_QUEUED, ids=sorted(schedule_ids))


_LOCK_QUEUED = Prepared(
    lock_rows(_SCHEDULE.select().where(is_one_of(schedules.c.id, "ids"), IS_QUEUED, _IS_THERE).order_by(schedules.c.id)),
    _SCHEDULE,
)


async def lock_queued(tx: Transaction, schedule_ids: Collection[str]) -> list[Schedule]:
    """Lock those of some schedules of which a time waits for the end of an execution."""
    return await tx.all(_LOCK_QUEUED, ids=sorted(schedule_ids))


_LOCK = Prepared(lock_rows(_SCHEDULE.select().where(is_one_of(schedules.c.id, "ids")).order_by(schedules.c.id)), _SCHEDULE)


async def lock(tx: Transaction, schedule_ids: Collection[str]) -> list[Schedule]:
    """Lock some schedules, in the order of their ids; those that are gone are not among them."""
    return await tx.all(_LOCK, ids=sorted(schedule_ids))
