"""Schedules, over all revisions of their blobs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from blobhub_server.blobtypes.values import Dependents
from blobhub_server.db.count import count_and_name
from blobhub_server.db.engine import Transaction
from blobhub_server.db.parts import delete_some
from blobhub_server.db.prepared import Prepared, is_one_of, lock_rows
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.db.schema import Id, Name, Time, metadata
from blobhub_server.scheduler.rules.schedule import Schedule

IS_DUE_ONCE = sa.text("next_due_time IS NOT NULL")
IS_QUEUED = sa.text("queued_nominal_time IS NOT NULL")
_ARMED = sa.text("version_id IS NOT NULL")
IS_RECURRING = sa.text("repeat = 'recurring_cron'")

schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("organization_id", Id(), nullable=False),
    sa.Column("blob_id", Id(), nullable=False),
    sa.Column("alias", Name(63), nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("paused_by", Id()),
    sa.Column("pause_note", sa.String(256), nullable=False),
    sa.Column("pause_time", Time()),
    # No foreign key: versions refer to schedules, and both are deleted together.
    sa.Column("version_id", Id()),
    sa.Column("repeat", sa.String(16)),
    sa.Column("saved_revision_id", Id(), nullable=False),
    sa.Column("next_nominal_time", Time()),
    sa.Column("next_due_time", Time()),
    sa.Column("last_nominal_time", Time()),
    sa.Column("tzdata", sa.String(16), nullable=False),
    sa.Column("reckon_time", Time()),
    sa.Column("running_firing_id", Id()),
    sa.Column("queued_kind", sa.String(16)),
    sa.Column("queued_nominal_time", Time()),
    sa.Column("firing_count", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("forgotten_nominal_time", Time()),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Column("etag", sa.String(64), nullable=False),
    sa.UniqueConstraint("blob_id", "alias"),
    # What is due is found by this, whatever else is stored.
    sa.Index("ix_schedules_due", "next_due_time", "id", sqlite_where=IS_DUE_ONCE, postgresql_where=IS_DUE_ONCE),
    sa.Index(
        "ix_schedules_upcoming", "blob_id", "next_nominal_time", "id", sqlite_where=IS_DUE_ONCE, postgresql_where=IS_DUE_ONCE
    ),
    sa.Index("ix_schedules_tzdata", "tzdata", "id", sqlite_where=IS_DUE_ONCE, postgresql_where=IS_DUE_ONCE),
    sa.Index("ix_schedules_reckon_time", "reckon_time", "id", sqlite_where=IS_RECURRING, postgresql_where=IS_RECURRING),
    # Not partial: SQLite would go by the condition of the index, and over all schedules that have fired.
    sa.Index("ix_schedules_firing_count", "firing_count", "id"),
    sa.Index("ix_schedules_queued", "id", sqlite_where=IS_QUEUED, postgresql_where=IS_QUEUED),
    sa.Index("ix_schedules_armed", "blob_id", "id", sqlite_where=_ARMED, postgresql_where=_ARMED),
)

_SCHEDULE = Mapper(Schedule, schedules)
_INSERT = Prepared(schedules.insert())
_ID = schedules.c.id == sa.bindparam("schedule")
_GET = Prepared(_SCHEDULE.select().where(_ID), _SCHEDULE)
_FIND = Prepared(
    _SCHEDULE.select().where(schedules.c.blob_id == sa.bindparam("blob"), schedules.c.alias == sa.bindparam("alias")),
    _SCHEDULE,
)
_FIND_SOME = Prepared(
    _SCHEDULE.select()
    .where(schedules.c.blob_id == sa.bindparam("blob"), is_one_of(schedules.c.alias, "aliases"))
    .order_by(schedules.c.id),
    _SCHEDULE,
)


async def insert(tx: Transaction, schedule: Schedule) -> None:
    """Store a new schedule. Raises IntegrityError when its blob has one of that alias."""
    await tx.run(_INSERT, **_SCHEDULE.row(schedule))


async def get(tx: Transaction, schedule_id: str, *, lock: bool = False) -> Schedule | None:
    """One schedule. With `lock` nobody else changes it until the transaction ends."""
    return await tx.first(_GET.locking if lock else _GET, schedule=schedule_id)


async def find(tx: Transaction, blob_id: str, alias: str, *, lock: bool = False) -> Schedule | None:
    """The schedule of a blob that has an alias; likewise."""
    return await tx.first(_FIND.locking if lock else _FIND, blob=blob_id, alias=alias)


async def find_some(tx: Transaction, blob_id: str, aliases: Collection[str], *, lock: bool = False) -> dict[str, Schedule]:
    """Several schedules of a blob, by alias; those that exist."""
    query = _FIND_SOME.locking if lock else _FIND_SOME
    return {schedule.alias: schedule for schedule in await tx.all(query, blob=blob_id, aliases=sorted(aliases))}


_STORED = [column.name for column in schedules.columns if column.name not in ("id", "organization_id", "blob_id", "alias")]
_UPDATE = Prepared(schedules.update().where(_ID).values({name: sa.bindparam(name) for name in _STORED}))


async def update(tx: Transaction, changed: Sequence[Schedule]) -> None:
    """Store schedules as they are now. The caller has locked them, or nobody else can know them yet."""
    rows = [{"schedule": each.id} | {name: getattr(each, name) for name in _STORED} for each in changed]
    await tx.run_each(_UPDATE, rows)


_ADVANCED = (
    *("next_nominal_time", "next_due_time", "last_nominal_time", "tzdata", "reckon_time"),
    *("running_firing_id", "queued_kind", "queued_nominal_time", "firing_count"),
)
_ADVANCE = Prepared(schedules.update().where(_ID).values({name: sa.bindparam(name) for name in _ADVANCED}))


async def advance(tx: Transaction, fired: Sequence[Schedule]) -> None:
    """Store what a firing changes of schedules, which the caller has locked."""
    await tx.run_each(
        _ADVANCE, [{"schedule": each.id} | {name: getattr(each, name) for name in _ADVANCED} for each in fired]
    )


_ARMED_AFTER = (
    _SCHEDULE.select()
    .where(schedules.c.blob_id == sa.bindparam("blob"), schedules.c.id > sa.bindparam("after"), _ARMED)
    .order_by(schedules.c.id)
    .limit(sa.bindparam("most"))
)
_PAGE_OF_ARMED = Prepared(lock_rows(_ARMED_AFTER), _SCHEDULE)


async def lock_armed(tx: Transaction, blob_id: str, *, after: str, limit: int) -> list[Schedule]:
    """Lock some of the armed schedules of a blob, those with ids after `after`, in the order of their ids."""
    return await tx.all(_PAGE_OF_ARMED, blob=blob_id, after=after, most=limit)


_UPCOMING = Prepared(
    _SCHEDULE.select()
    .where(
        schedules.c.blob_id == sa.bindparam("blob"),
        IS_DUE_ONCE,
        sa.tuple_(schedules.c.next_nominal_time, schedules.c.id)
        > sa.tuple_(sa.bindparam("time", type_=Time()), sa.bindparam("after")),
    )
    .order_by(schedules.c.next_nominal_time, schedules.c.id)
    .limit(sa.bindparam("most")),
    _SCHEDULE,
)


async def upcoming(tx: Transaction, blob_id: str, after: tuple[object, str], limit: int) -> list[Schedule]:
    """Some schedules of a blob that will fire, by their next time and id, those after such a pair."""
    return await tx.all(_UPCOMING, blob=blob_id, time=after[0], after=after[1], most=limit)


async def dependents_in_blob(tx: Transaction, blob_id: str) -> Dependents:
    """The schedules of a blob that will fire."""
    count, ids = await count_and_name(tx, schedules.c.id, schedules.c.blob_id == blob_id, IS_DUE_ONCE)
    return Dependents(kind="active schedules", count=count, ids=ids)


# Which these are is left to the index. To order all that there are by their ids takes a second where a million are left.
_ANY_IDS = (
    sa.select(schedules.c.id)
    .where(is_one_of(schedules.c.blob_id, "blobs"))
    .limit(sa.bindparam("most", type_=sa.BigInteger))
    .subquery()
)
_SOME_IDS = Prepared(
    lock_rows(sa.select(schedules.c.id).where(schedules.c.id.in_(sa.select(_ANY_IDS.c.id))).order_by(schedules.c.id)),
    Scalar(str),
)


async def lock_some(tx: Transaction, blob_ids: Sequence[str], limit: int) -> list[str]:
    """Lock some schedules of deleted blobs, in the order of their ids, so that they fire no more; return their ids."""
    return await tx.all(_SOME_IDS, blobs=blob_ids, most=limit)


async def collect(tx: Transaction, schedule_ids: Sequence[str], rows: int) -> int:
    """Remove so many schedules, to which nothing refers any more, at most; return how many were removed."""
    return await delete_some(tx, schedules, schedules.c.id.in_(schedule_ids), rows)
