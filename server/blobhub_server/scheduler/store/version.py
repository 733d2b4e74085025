"""The documents of schedules, by what they were saved under: arming and firing read rows, and never objects."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from blobhub_server.blobtypes.values import Dependents
from blobhub_server.db.engine import Transaction
from blobhub_server.db.parts import delete_some
from blobhub_server.db.prepared import Prepared, is_one_of, upsert
from blobhub_server.db.presence import blob_is_there, content_is_there
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.db.schema import Id, Time, metadata
from blobhub_server.scheduler.rules.schedule import ScheduleVersion
from blobhub_server.scheduler.store.schedule import schedules

_PINS = sa.text("target_revision_id IS NOT NULL")

schedule_versions = sa.Table(
    "schedule_versions",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("schedule_id", Id(), sa.ForeignKey("schedules.id"), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("target_revision_id", Id()),
    sa.Column("actor_id", Id(), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.UniqueConstraint("schedule_id", "digest"),
    sa.Index(
        "ix_schedule_versions_target_revision_id", "target_revision_id", "id", sqlite_where=_PINS, postgresql_where=_PINS
    ),
)

_VERSION = Mapper(ScheduleVersion, schedule_versions)
_KEYS = (schedule_versions.c.schedule_id, schedule_versions.c.digest)
_PUT = Prepared(upsert(schedule_versions, keys=_KEYS, changed=[schedule_versions.c.actor_id]))
_FIND = Prepared(
    _VERSION.select().where(
        schedule_versions.c.schedule_id == sa.bindparam("schedule"), schedule_versions.c.digest == sa.bindparam("digest")
    ),
    _VERSION,
)


async def put(tx: Transaction, version: ScheduleVersion) -> ScheduleVersion:
    """Store a document under its schedule, unless it is there; in either case for its actor. Return what is there now."""
    await tx.run(_PUT, **_VERSION.row(version))
    return await tx.one(_FIND, schedule=version.schedule_id, digest=version.digest)


_GET = Prepared(_VERSION.select().where(schedule_versions.c.id == sa.bindparam("id")), _VERSION)
_GET_SOME = Prepared(_VERSION.select().where(is_one_of(schedule_versions.c.id, "ids")), _VERSION)


async def get(tx: Transaction, version_id: str) -> ScheduleVersion:
    """A document by its id, which a schedule has. Nothing removes one but the deletion of its blob."""
    return await tx.one(_GET, id=version_id)


async def get_some(tx: Transaction, version_ids: Collection[str]) -> dict[str, ScheduleVersion]:
    """Several documents, by their ids."""
    return {version.id: version for version in await tx.all(_GET_SOME, ids=sorted(version_ids))}


_AMONG = Prepared(
    _VERSION.select().where(
        is_one_of(schedule_versions.c.schedule_id, "schedules"), is_one_of(schedule_versions.c.digest, "digests")
    ),
    _VERSION,
)


async def find_some(tx: Transaction, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], ScheduleVersion]:
    """Several documents, by schedule and digest."""
    schedule_ids, digests = sorted({key[0] for key in wanted}), sorted({key[1] for key in wanted})
    found = await tx.all(_AMONG, schedules=schedule_ids, digests=digests)
    return {(version.schedule_id, version.digest): version for version in found}


_PINNING = Prepared(
    sa.select(sa.func.count(schedules.c.id.distinct()))
    .join(schedule_versions, schedule_versions.c.schedule_id == schedules.c.id)
    .where(
        schedule_versions.c.target_revision_id == sa.bindparam("revision"),
        blob_is_there(schedules.c.blob_id),
        content_is_there(schedules.c.blob_id, schedules.c.alias, schedule_versions.c.digest),
    ),
    Scalar(int),
)


_IN_ANOTHER = Prepared(
    sa.select(sa.func.count())
    .select_from(schedules)
    .join(schedule_versions, schedule_versions.c.schedule_id == schedules.c.id)
    .where(
        schedules.c.id == sa.bindparam("schedule"),
        content_is_there(
            schedules.c.blob_id,
            schedules.c.alias,
            schedule_versions.c.digest,
            other_than=sa.bindparam("revision", type_=sa.String),
        ),
    ),
    Scalar(int),
)


async def is_in_another(tx: Transaction, schedule_id: str, revision_id: str) -> bool:
    """Whether a revision of its blob other than a given one has the schedule."""
    return await tx.one(_IN_ANOTHER, schedule=schedule_id, revision=revision_id) > 0


async def dependents_on_target(tx: Transaction, revision_id: str) -> Dependents:
    """The schedules that pin a revision of another blob, in whatever revision of their own, so that each can be the default.

    They are counted and not named, as they are in other blobs.
    """
    return Dependents(kind="schedules that invoke it", count=await tx.one(_PINNING, revision=revision_id))


async def collect(tx: Transaction, schedule_ids: Sequence[str], rows: int) -> int:
    """Remove so many documents of schedules, which the caller has locked, at most; return how many were removed."""
    return await delete_some(tx, schedule_versions, schedule_versions.c.schedule_id.in_(schedule_ids), rows)


_REASSIGN = Prepared(
    schedule_versions.update()
    .where(schedule_versions.c.id == sa.bindparam("version"))
    .values(actor_id=sa.bindparam("actor"))
)


async def reassign(tx: Transaction, version_id: str, actor_id: str) -> None:
    """Have a document fire on somebody else's behalf."""
    await tx.run(_REASSIGN, version=version_id, actor=actor_id)
