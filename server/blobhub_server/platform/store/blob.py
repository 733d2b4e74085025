"""Blobs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.schema import Id, Time, metadata
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.store.organization import organizations

blobs = sa.Table(
    "blobs",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("org_id", Id(), sa.ForeignKey("organizations.id"), nullable=False),
    sa.Column("alias", sa.String(42), nullable=False),
    sa.Column("type", sa.String(128), nullable=False),
    sa.Column("visibility", sa.String(16), nullable=False),
    sa.Column("description", sa.String(256), nullable=False),
    sa.Column("default_revision_id", Id(), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Column("etag", Id(), nullable=False),
    sa.Index("uq_blobs_org_id_alias", "org_id", "alias", unique=True),
    sa.Index("ix_blobs_org_id_id", "org_id", "id"),
    sa.Index("ix_blobs_org_id_type_id", "org_id", "type", "id"),
)


async def insert(tx: Transaction, blob: Blob) -> None:
    """Store a new blob. Raises IntegrityError when the alias is taken."""
    await tx.execute(blobs.insert(), asdict(blob))


async def get(tx: Transaction, blob_id: str, *, lock: bool = False) -> Blob | None:
    """One blob by id. With `lock` nobody else changes it until the transaction ends."""
    query = blobs.select().where(blobs.c.id == blob_id)
    row = (await tx.execute(query.with_for_update() if lock else query)).first()
    return Blob(*row) if row else None


_ALIAS = blobs.c.alias == sa.bindparam("blob")
_BY_ID = blobs.select().where(blobs.c.org_id == sa.bindparam("organization"), _ALIAS)
_BY_ALIAS = (
    blobs.select()
    .join(organizations, organizations.c.id == blobs.c.org_id)
    .where(organizations.c.alias == sa.bindparam("organization"), _ALIAS)
)


async def find(tx: Transaction, organization: str, alias: str, *, by_id: bool) -> Blob | None:
    """One blob by its alias within an organization, itself named by alias or, with `by_id`, by id."""
    query = _BY_ID if by_id else _BY_ALIAS
    row = (await tx.execute(query, {"organization": organization, "blob": alias})).first()
    return Blob(*row) if row else None


async def page(tx: Transaction, org_id: str, *, type_: str, after: str, limit: int) -> list[Blob]:
    """An organization's blobs by id, those after `after`."""
    query = blobs.select().where(blobs.c.org_id == org_id, blobs.c.id > after)
    if type_:
        query = query.where(blobs.c.type == type_)
    return [Blob(*row) for row in await tx.execute(query.order_by(blobs.c.id).limit(limit))]


async def set_default(tx: Transaction, blob_id: str, revision_id: str, *, now: datetime, etag: str) -> None:
    """Move a blob's default revision."""
    values = {"default_revision_id": revision_id, "update_time": now, "etag": etag}
    await tx.execute(blobs.update().where(blobs.c.id == blob_id).values(values))
