"""Revisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from blobhub_server.blobtypes.values import Dependents
from blobhub_server.db.count import count_and_name
from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.parts import delete_some
from blobhub_server.db.prepared import Prepared, is_one_of
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.db.schema import Id, Time, metadata
from blobhub_server.platform.rules.revision import DRAFT, Revision

revisions = sa.Table(
    "revisions",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("blob_id", Id(), nullable=False),
    sa.Column("phase", sa.String(16), nullable=False),
    sa.Column("base_revision_id", Id()),
    sa.Column("comment", sa.String(200), nullable=False),
    sa.Column("number", sa.BigInteger),
    sa.Column("label", sa.String(64), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Column("commit_time", Time()),
    sa.Column("etag", Id(), nullable=False),
    sa.Column("entries", sa.BigInteger, nullable=False),
    sa.Index("ix_revisions_blob_id_id", "blob_id", "id"),
    sa.Index("ix_revisions_blob_id_phase_id", "blob_id", "phase", "id"),
    sa.Index("ix_revisions_blob_id_commit_time_id", "blob_id", "commit_time", "id"),
    sa.Index("ix_revisions_blob_id_entries", "blob_id", "entries"),
    sa.Index("ix_revisions_base_revision_id", "base_revision_id"),
    sa.Index("uq_revisions_blob_id_number", "blob_id", "number", unique=True),
)


_REVISION = Mapper(Revision, revisions)
_SELECT = _REVISION.select()
_INSERT = Prepared(revisions.insert())


async def insert(tx: Transaction, revision: Revision) -> None:
    """Store a new revision."""
    await tx.run(_INSERT, **_REVISION.row(revision))


_ID = revisions.c.id == sa.bindparam("revision")
_BLOB = revisions.c.blob_id == sa.bindparam("blob")
_GET = Prepared(_SELECT.where(_ID), _REVISION)


async def get(tx: Transaction, revision_id: str, *, lock: bool = False) -> Revision | None:
    """One revision. With `lock` nobody else changes it until the transaction ends."""
    return await tx.first(_GET.locking if lock else _GET, revision=revision_id)


_GET_SOME = Prepared(_SELECT.where(is_one_of(revisions.c.id, "wanted")), _REVISION)


async def get_some(tx: Transaction, revision_ids: Sequence[str]) -> dict[str, Revision]:
    """Several revisions, by id; those that there are."""
    return {revision.id: revision for revision in await tx.all(_GET_SOME, wanted=revision_ids)}


_GET_SNAPSHOT = Prepared(_SELECT.where(_BLOB, revisions.c.number == sa.bindparam("wanted")), _REVISION)


async def get_snapshot(tx: Transaction, blob_id: str, number: int) -> Revision | None:
    """A blob's snapshot by its number."""
    return await tx.first(_GET_SNAPSHOT, blob=blob_id, wanted=number)


async def drafts(tx: Transaction, blob_id: str, limit: int) -> list[Revision]:
    """A blob's drafts, oldest first."""
    query = _SELECT.where(revisions.c.blob_id == blob_id, revisions.c.phase == DRAFT)
    return _REVISION.all(await tx.execute(query.order_by(revisions.c.id).limit(limit)))


_DRAFTS_AMONG = Prepared(
    sa.select(revisions.c.id).where(is_one_of(revisions.c.id, "wanted"), revisions.c.phase == sa.bindparam("phase")),
    Scalar(str),
)


async def drafts_among(tx: Transaction, revision_ids: Sequence[str]) -> list[str]:
    """Those of the ids that are drafts'."""
    return await tx.all(_DRAFTS_AMONG, wanted=revision_ids, phase=DRAFT)


_LATEST = Prepared(
    _SELECT.where(_BLOB, revisions.c.commit_time.is_not(None))
    .order_by(revisions.c.commit_time.desc(), revisions.c.id.desc())
    .limit(1),
    _REVISION,
)


async def get_latest(tx: Transaction, blob_id: str) -> Revision | None:
    """The commit or snapshot of a blob that was committed last."""
    return await tx.first(_LATEST, blob=blob_id)


async def page(
    tx: Transaction, blob_id: str, *, order_by: str, phase: str | None, drafts: bool, after: str, limit: int
) -> list[Revision]:
    """A blob's revisions in an order, those after `after`; without its drafts unless `drafts`."""
    query = _SELECT.where(revisions.c.blob_id == blob_id)
    if phase:
        query = query.where(revisions.c.phase == phase)
    if not drafts:
        query = query.where(revisions.c.phase != DRAFT)
    return _REVISION.all(await tx.execute(Order.parse(revisions, order_by).apply(query, after, limit)))


_LAST_NUMBER = Prepared(sa.select(sa.func.max(revisions.c.number)).where(_BLOB), Scalar(int))


async def next_number(tx: Transaction, blob_id: str) -> int:
    """The number of a blob's next snapshot. The caller has locked the blob."""
    return (await tx.first(_LAST_NUMBER, blob=blob_id) or 0) + 1


async def update(tx: Transaction, revision_id: str, **values: Any) -> None:
    """Change some columns."""
    await tx.execute(revisions.update().where(revisions.c.id == revision_id).values(values))


async def branches(tx: Transaction, revision_id: str) -> Dependents:
    """The revisions that were branched from this one."""
    count, ids = await count_and_name(tx, revisions.c.id, revisions.c.base_revision_id == revision_id)
    return Dependents(kind="branched revisions", count=count, ids=ids)


_COUNT = Prepared(sa.select(sa.func.count()).where(_BLOB), Scalar(int))


async def count(tx: Transaction, blob_id: str) -> int:
    """How many revisions a blob has."""
    return await tx.one(_COUNT, blob=blob_id)


_MOST_ENTRIES = Prepared(sa.select(sa.func.max(revisions.c.entries)).where(_BLOB), Scalar(int))


async def most_entries(tx: Transaction, blob_id: str) -> int:
    """The number of entries in a blob's fullest revision."""
    return await tx.first(_MOST_ENTRIES, blob=blob_id) or 0


_DELETE = Prepared(revisions.delete().where(_ID))


async def delete(tx: Transaction, revision_id: str) -> None:
    """Remove a revision. The caller has removed its content."""
    await tx.run(_DELETE, revision=revision_id)


async def collect(tx: Transaction, blob_ids: Sequence[str], rows: int) -> int:
    """Remove so many revisions of deleted blobs, whose content is removed, at most; return how many were removed."""
    return await delete_some(tx, revisions, revisions.c.blob_id.in_(blob_ids), rows)
