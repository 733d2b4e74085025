"""Schedules whose next time was reckoned on grounds that do not hold any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.db.schema import Time
from blobhub_server.scheduler.store.schedule import IS_DUE_ONCE, IS_RECURRING, schedules


@dataclass(frozen=True, slots=True)
class Reckoned:
    """A schedule, and when it is due next."""

    next_due_time: datetime
    id: str


_RECKONED = Mapper(Reckoned, schedules)
_MOST = sa.bindparam("most", type_=sa.BigInteger)
_VERSIONS = sa.select(schedules.c.tzdata).where(IS_DUE_ONCE).limit(1)
# The ends of the index. To ask for what is not of a version reads all schedules, where all are of that.
_ENDS = [Prepared(_VERSIONS.order_by(order), Scalar(str)) for order in (schedules.c.tzdata, schedules.c.tzdata.desc())]


async def zone_data_versions(tx: Transaction) -> set[str]:
    """The oldest and the newest version of zone data that any next time was reckoned with; empty when there is none."""
    return {version for query in _ENDS if (version := await tx.first(query)) is not None}


_OTHERWISE = Prepared(
    _RECKONED.select()
    .where(
        IS_DUE_ONCE,
        sa.tuple_(schedules.c.next_due_time, schedules.c.id)
        > sa.tuple_(sa.bindparam("time", type_=Time()), sa.bindparam("after")),
        schedules.c.tzdata != sa.bindparam("tzdata"),
    )
    .order_by(schedules.c.next_due_time, schedules.c.id)
    .limit(_MOST),
    _RECKONED,
)


async def list_reckoned_otherwise(tx: Transaction, tzdata: str, after: Reckoned, limit: int) -> Sequence[Reckoned]:
    """Some schedules whose next time was reckoned with other zone data, those after another one, the soonest first.

    It goes over all that are due after that one, so it is for the long lane.
    """
    return await tx.all(_OTHERWISE, tzdata=tzdata, time=after.next_due_time, after=after.id, most=limit)


_AHEAD = Prepared(
    sa.select(schedules.c.id)
    .where(IS_RECURRING, schedules.c.reckon_time > sa.bindparam("time", type_=Time()))
    .order_by(schedules.c.reckon_time, schedules.c.id)
    .limit(_MOST),
    Scalar(str),
)


async def list_reckoned_after(tx: Transaction, time: datetime, limit: int) -> Sequence[str]:
    """Some recurring schedules whose next time was reckoned from an instant that is later than another one."""
    return await tx.all(_AHEAD, time=time, most=limit)
