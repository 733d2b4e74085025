"""The log of a blob's firings: their numbers, what becomes of their executions, and the pages that watchers read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.prepared import Prepared, is_one_of, lock_rows
from blobhub_server.db.presence import blob_is_there
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.db.schema import Time
from blobhub_server.scheduler.rules.firing import MISSED, Firing, FiringKind, FiringStatus
from blobhub_server.scheduler.store.firing import firing_logs, firings

_FIRING = Mapper(Firing, firings)
_INSERT = Prepared(firings.insert())


async def insert(tx: Transaction, new: Sequence[Firing]) -> None:
    """Store new firings. Raises IntegrityError when a time of a schedule has one of that kind."""
    await tx.run_each(_INSERT, [_FIRING.row(firing) for firing in new])


@dataclass(frozen=True, slots=True)
class FiredTime:
    """A time of a schedule that has fired, or was skipped."""

    schedule_id: str
    nominal_time: datetime


_OWN_TIMES = (FiringKind.SCHEDULED, FiringKind.CAUGHT_UP, FiringKind.BACKFILLED)
"""The kinds of firings that are for a time of a schedule."""
_FIRED = Mapper(FiredTime, firings)
_FIND_FIRED = Prepared(
    _FIRED.select().where(
        firings.c.schedule_id == sa.bindparam("schedule"),
        firings.c.nominal_time == sa.bindparam("nominal", type_=Time()),
        sa.or_(*(firings.c.kind == kind for kind in _OWN_TIMES)),
        # A time that was told as missed when a clock was ahead has its turn when it really comes. That is no firing of the
        # kind that has told of it, of which there is one at a time.
        sa.or_(firings.c.reason != MISSED, firings.c.kind == sa.bindparam("kind", type_=sa.String)),
    ),
    _FIRED,
)


async def find_fired(tx: Transaction, times: Iterable[tuple[str, datetime, FiringKind]]) -> set[tuple[str, datetime]]:
    """Those of some times, each with its schedule's id, that have had their turn, or have a firing of a kind."""
    rows = [{"schedule": schedule_id, "nominal": nominal_time, "kind": kind} for schedule_id, nominal_time, kind in times]
    return {(fired.schedule_id, fired.nominal_time) for fired in await tx.run_each(_FIND_FIRED, rows)}


_IN_RANGE = (
    firings.c.schedule_id == sa.bindparam("schedule"),
    firings.c.nominal_time >= sa.bindparam("start", type_=Time()),
    firings.c.nominal_time <= sa.bindparam("end", type_=Time()),
)
_IN_STARTED = Prepared(
    sa.select(firings.c.nominal_time).where(
        *_IN_RANGE, sa.or_(*(firings.c.kind == kind for kind in _OWN_TIMES)), firings.c.status == FiringStatus.SUCCESS
    ),
    Scalar(datetime),
)


async def find_started(tx: Transaction, schedule_id: str, start: datetime, end: datetime) -> set[datetime]:
    """The times of a schedule in a range, both ends included, for which an execution was started."""
    return set(await tx.all(_IN_STARTED, schedule=schedule_id, start=start, end=end))


_BACKFILLED = Prepared(
    _FIRING.select().where(*_IN_RANGE, firings.c.kind == FiringKind.BACKFILLED).order_by(firings.c.nominal_time), _FIRING
)


async def list_backfilled(tx: Transaction, schedule_id: str, start: datetime, end: datetime) -> list[Firing]:
    """The backfilled firings of a schedule for the times of a range, both ends included, as they fired."""
    found = await tx.all(_BACKFILLED, schedule=schedule_id, start=start, end=end)
    return [as_fired(firing) for firing in found]


def as_fired(firing: Firing) -> Firing:
    """A firing as it was before its execution ended, as in the line of the log that it began with."""
    if firing.execution_state is None and firing.end_time is None:
        return firing
    return replace(firing, execution_state=None, end_time=None)


def as_ended(firing: Firing) -> Firing:
    """A firing as in the line of the log that tells its execution's end, by that line's number."""
    assert firing.end_sequence is not None, "its execution has ended"
    return replace(firing, sequence=firing.end_sequence)


def _counting(insert: sqlite.Insert | postgresql.Insert) -> sa.UpdateBase:
    """Count some numbers on to those of a blob's log, which is made if it has none; the last number."""
    grown = {"last_sequence": firing_logs.c.last_sequence + insert.excluded.last_sequence}
    return insert.on_conflict_do_update(index_elements=[firing_logs.c.blob_id], set_=grown).returning(
        firing_logs.c.last_sequence
    )


_TAKE = Prepared(
    {"sqlite": _counting(sqlite.insert(firing_logs)), "postgresql": _counting(postgresql.insert(firing_logs))}, Scalar(int)
)


async def take_numbers(tx: Transaction, counts: Mapping[str, int]) -> dict[str, int]:
    """Take so many of the next numbers of some blobs' logs; return the first of each.

    Do this last in a transaction: until its end nobody else takes numbers of these blobs, so numbers become visible in
    their order.
    """
    blob_ids = sorted(counts)
    rows = [{"blob_id": id_, "first_sequence": 1, "last_sequence": counts[id_]} for id_ in blob_ids]
    ends = await tx.run_each(_TAKE, rows)
    return {id_: end - counts[id_] + 1 for id_, end in zip(blob_ids, ends, strict=True)}


@dataclass(frozen=True, slots=True)
class StartedFiring:
    """A firing that has started an execution."""

    id: str
    blob_id: str
    schedule_id: str


_STARTED = Mapper(StartedFiring, firings)
_LOCK_STARTED = Prepared(
    lock_rows(
        _STARTED.select().where(is_one_of(firings.c.id, "ids"), blob_is_there(firings.c.blob_id)).order_by(firings.c.id)
    ),
    _STARTED,
)


async def lock_started(tx: Transaction, firing_ids: Collection[str]) -> list[StartedFiring]:
    """Lock those of some firings that there are in blobs that are there, in the order of their ids.

    So none of them is collected before the transaction ends, and with it what that adds to the log.
    """
    return await tx.all(_LOCK_STARTED, ids=sorted(firing_ids))


_SOME = Prepared(_FIRING.select().where(is_one_of(firings.c.id, "ids")), _FIRING)


async def get_some(tx: Transaction, firing_ids: Collection[str]) -> list[Firing]:
    """Several firings."""
    return await tx.all(_SOME, ids=sorted(firing_ids))


@dataclass(frozen=True, slots=True)
class FiringEnd:
    """How the execution of a firing has ended, and the number of that in the log."""

    id: str
    execution_state: str
    end_time: datetime
    end_sequence: int


_END = Prepared(
    firings.update()
    .where(firings.c.id == sa.bindparam("firing"))
    .values({name: sa.bindparam(name) for name in ("execution_state", "end_time", "end_sequence")})
)


async def end(tx: Transaction, ends: Sequence[FiringEnd]) -> None:
    """Keep how executions have ended."""
    await tx.run_each(
        _END,
        [
            {
                "firing": each.id,
                "execution_state": each.execution_state,
                "end_time": each.end_time,
                "end_sequence": each.end_sequence,
            }
            for each in ends
        ],
    )


@dataclass(frozen=True, slots=True)
class LogNumbers:
    """The first and the last number of a blob's log: all from one to the other can be read by now."""

    first_sequence: int
    last_sequence: int


_NUMBERS = Mapper(LogNumbers, firing_logs)
_GET_NUMBERS = Prepared(_NUMBERS.select().where(firing_logs.c.blob_id == sa.bindparam("blob")), _NUMBERS)


async def numbers(tx: Transaction, blob_id: str) -> LogNumbers:
    """The numbers that a blob's log has."""
    return await tx.first(_GET_NUMBERS, blob=blob_id) or LogNumbers(first_sequence=1, last_sequence=0)


_AFTER, _UP_TO = sa.bindparam("after", type_=sa.BigInteger), sa.bindparam("last", type_=sa.BigInteger)


def _lines(number: sa.Column[Any], whose: sa.ColumnElement[bool]) -> Prepared[Firing]:
    query = _FIRING.select().where(whose, number > _AFTER, number <= _UP_TO)
    return Prepared(query.order_by(number).limit(sa.bindparam("most", type_=sa.BigInteger)), _FIRING)


_OF_BLOB, _OF_SCHEDULE = firings.c.blob_id == sa.bindparam("blob"), firings.c.schedule_id == sa.bindparam("schedule")
_BEGUN, _ENDED = _lines(firings.c.sequence, _OF_BLOB), _lines(firings.c.end_sequence, _OF_BLOB)
_BEGUN_OF, _ENDED_OF = _lines(firings.c.sequence, _OF_SCHEDULE), _lines(firings.c.end_sequence, _OF_SCHEDULE)


async def lines(tx: Transaction, blob_id: str, schedule_id: str, *, after: int, last: int, limit: int) -> list[Firing]:
    """The log of a blob, or what it says of one schedule, after a number and up to another: firings as they were then."""
    whose = {"schedule": schedule_id} if schedule_id else {"blob": blob_id}
    begun = await tx.all(_BEGUN_OF if schedule_id else _BEGUN, after=after, last=last, most=limit, **whose)
    ended = await tx.all(_ENDED_OF if schedule_id else _ENDED, after=after, last=last, most=limit, **whose)
    made = [as_fired(firing) for firing in begun]
    made += map(as_ended, ended)
    return sorted(made, key=lambda firing: firing.sequence)[:limit]


async def page(
    tx: Transaction,
    blob_id: str,
    *,
    schedule_id: str,
    status: FiringStatus | None,
    order_by: str,
    after: str,
    limit: int,
) -> list[Firing]:
    """The firings of a blob, or of one schedule of it, in an order, those after a key. By creation is by their numbers."""
    whose = firings.c.schedule_id == schedule_id if schedule_id else firings.c.blob_id == blob_id
    query = _FIRING.select().where(whose)
    if status is not None:
        query = query.where(firings.c.status == status)
    order = Order.parse(firings, order_by, create_time=("sequence",))
    return _FIRING.all(await tx.execute(order.apply(query, after, limit)))
