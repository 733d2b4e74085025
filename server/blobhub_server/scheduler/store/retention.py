"""Old firings: how they are found by indexes, and removed. The cost is that of what is removed, whatever is stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import Prepared, is_one_of, lock_rows
from blobhub_server.db.presence import blob_is_there
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.scheduler.rules.firing import Firing
from blobhub_server.scheduler.store.firing import firing_logs, firings
from blobhub_server.scheduler.store.schedule import schedules

_MOST = sa.bindparam("most", type_=sa.BigInteger)
_MADE_BEFORE = Prepared(
    sa.select(firings.c.id)
    .where(firings.c.id < sa.bindparam("end"), firings.c.id > sa.bindparam("after"), blob_is_there(firings.c.blob_id))
    .order_by(firings.c.id)
    .limit(_MOST),
    Scalar(str),
)


async def list_between(tx: Transaction, *, after: str, end: str, limit: int) -> list[str]:
    """Some firings with ids after one and before another, the oldest first: ids sort by when they were made."""
    return await tx.all(_MADE_BEFORE, after=after, end=end, most=limit)


@dataclass(frozen=True, slots=True)
class CountedSchedule:
    """A schedule, and how many firings it has."""

    firing_count: int
    id: str


_COUNTED = Mapper(CountedSchedule, schedules)
_LONGEST = Prepared(
    _COUNTED.select()
    .where(
        schedules.c.firing_count > sa.bindparam("count", type_=sa.BigInteger),
        sa.tuple_(schedules.c.firing_count, schedules.c.id)
        > sa.tuple_(sa.bindparam("after_count", type_=sa.BigInteger), sa.bindparam("after")),
        blob_is_there(schedules.c.blob_id),
    )
    .order_by(schedules.c.firing_count, schedules.c.id)
    .limit(_MOST),
    _COUNTED,
)


async def list_longer(tx: Transaction, count: int, after: CountedSchedule, limit: int) -> list[CountedSchedule]:
    """Some schedules that have more firings than `count`, those after another one in the order of their number."""
    return await tx.all(_LONGEST, count=count, after_count=after.firing_count, after=after.id, most=limit)


@dataclass(frozen=True, slots=True)
class NumberedFiring:
    """A firing, and its number in the log of its blob."""

    sequence: int
    id: str


_NUMBERED = Mapper(NumberedFiring, firings)
_OLDEST = Prepared(
    _NUMBERED.select()
    .where(
        firings.c.schedule_id == sa.bindparam("schedule"),
        firings.c.sequence > sa.bindparam("after", type_=sa.BigInteger),
    )
    .order_by(firings.c.sequence)
    .limit(_MOST),
    _NUMBERED,
)


async def list_oldest(tx: Transaction, schedule_id: str, *, after: int, limit: int) -> list[NumberedFiring]:
    """Some firings of a schedule, the oldest first, those after a number."""
    return await tx.all(_OLDEST, schedule=schedule_id, after=after, most=limit)


_FIRING = Mapper(Firing, firings)
_SCHEDULES_OF = Prepared(
    sa.select(firings.c.schedule_id).where(is_one_of(firings.c.id, "ids")).distinct(),
    Scalar(str),
)
_LOCK = Prepared(lock_rows(_FIRING.select().where(is_one_of(firings.c.id, "ids")).order_by(firings.c.id)), _FIRING)


async def schedules_of(tx: Transaction, firing_ids: Collection[str]) -> list[str]:
    """The ids of the schedules of some firings."""
    return await tx.all(_SCHEDULES_OF, ids=sorted(firing_ids))


async def lock(tx: Transaction, firing_ids: Collection[str]) -> list[Firing]:
    """Lock some firings, in the order of their ids, as those do who write how executions have ended."""
    return await tx.all(_LOCK, ids=sorted(firing_ids))


_DELETE = Prepared(firings.delete().where(is_one_of(firings.c.id, "ids")))


async def delete(tx: Transaction, firing_ids: Collection[str]) -> None:
    """Remove some locked firings."""
    await tx.run(_DELETE, ids=sorted(firing_ids))


_FIRST = sa.bindparam("first", type_=sa.BigInteger)
_SET_FIRST = Prepared(
    firing_logs.update()
    .where(firing_logs.c.blob_id == sa.bindparam("blob"), firing_logs.c.first_sequence < _FIRST)
    .values(first_sequence=_FIRST)
)


async def set_first_numbers(tx: Transaction, firsts: Mapping[str, int]) -> None:
    """Have the logs of some blobs begin with these numbers, unless they begin later. This locks them: do it last."""
    await tx.run_each(_SET_FIRST, [{"blob": blob_id, "first": firsts[blob_id]} for blob_id in sorted(firsts)])
