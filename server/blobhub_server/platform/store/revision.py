"""Revisions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from blobhub_server.blobtypes.values import Dependents
from blobhub_server.db.count import count_and_name
from blobhub_server.db.engine import Transaction, locked
from blobhub_server.db.schema import Id, Selected, Time, metadata
from blobhub_server.platform.rules.revision import DRAFT, Revision

revisions = sa.Table(
    "revisions",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("blob_id", Id(), sa.ForeignKey("blobs.id"), nullable=False),
    sa.Column("phase", sa.String(16), nullable=False),
    sa.Column("parent_id", Id()),
    sa.Column("comment", sa.String(200), nullable=False),
    sa.Column("number", sa.BigInteger),
    sa.Column("label", sa.String(64), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Column("etag", Id(), nullable=False),
    sa.Column("entries", sa.BigInteger, nullable=False),
    sa.Index("ix_revisions_blob_id_id", "blob_id", "id"),
    sa.Index("ix_revisions_blob_id_entries", "blob_id", "entries"),
    sa.Index("ix_revisions_parent_id", "parent_id"),
    sa.Index("uq_revisions_blob_id_number", "blob_id", "number", unique=True),
)


async def insert(tx: Transaction, revision: Revision) -> None:
    """Store a new revision."""
    await tx.execute(revisions.insert(), asdict(revision))


async def get(tx: Transaction, revision_id: str, *, lock: bool = False) -> Revision | None:
    """One revision. With `lock` nobody else changes it until the transaction ends."""
    query = revisions.select().where(revisions.c.id == revision_id)
    row = (await tx.execute(locked(query) if lock else query)).first()
    return Revision(*row) if row else None


async def numbered(tx: Transaction, blob_id: str, number: int) -> Revision | None:
    """A blob's snapshot of a number."""
    query = revisions.select().where(revisions.c.blob_id == blob_id, revisions.c.number == number)
    row = (await tx.execute(query)).first()
    return Revision(*row) if row else None


async def drafts(tx: Transaction, blob_id: str, limit: int) -> list[Revision]:
    """A blob's drafts, oldest first."""
    query = revisions.select().where(revisions.c.blob_id == blob_id, revisions.c.phase == DRAFT)
    return [Revision(*row) for row in await tx.execute(query.order_by(revisions.c.id).limit(limit))]


async def page(tx: Transaction, blob_id: str, *, after: str, limit: int) -> list[Revision]:
    """A blob's revisions by id, those after `after`."""
    query = revisions.select().where(revisions.c.blob_id == blob_id, revisions.c.id > after)
    return [Revision(*row) for row in await tx.execute(query.order_by(revisions.c.id).limit(limit))]


async def next_number(tx: Transaction, blob_id: str) -> int:
    """The number of a blob's next snapshot. The caller has locked the blob."""
    query = sa.select(sa.func.max(revisions.c.number)).where(revisions.c.blob_id == blob_id)
    return ((await tx.execute(query)).scalar() or 0) + 1


async def update(tx: Transaction, revision_id: str, **values: Any) -> None:
    """Change some columns."""
    await tx.execute(revisions.update().where(revisions.c.id == revision_id).values(values))


async def branched(tx: Transaction, revision_id: str) -> Dependents:
    """The revisions that were branched from this one."""
    return Dependents("branched revisions", *await count_and_name(tx, revisions.c.id, revisions.c.parent_id == revision_id))


async def count(tx: Transaction, blob_id: str) -> int:
    """How many revisions a blob has."""
    query = sa.select(sa.func.count()).where(revisions.c.blob_id == blob_id)
    return int((await tx.execute(query)).scalar_one())


async def most_entries(tx: Transaction, blob_id: str) -> int:
    """How many entries that revision of a blob has that has the most."""
    query = sa.select(sa.func.max(revisions.c.entries)).where(revisions.c.blob_id == blob_id)
    return (await tx.execute(query)).scalar() or 0


async def delete(tx: Transaction, revision_id: str) -> None:
    """Remove a revision. The caller has removed its content."""
    await tx.execute(revisions.delete().where(revisions.c.id == revision_id))


async def delete_all_of_blobs(tx: Transaction, blob_ids: Selected) -> None:
    """Remove all revisions of blobs. The caller has removed their content."""
    await tx.execute(revisions.delete().where(revisions.c.blob_id.in_(blob_ids)))
