"""API keys: their records; no secret is ever here."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.schema import Id, Time, metadata
from blobhub_server.platform.rules.access import Role
from blobhub_server.platform.rules.api_key import ApiKey

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("public_id", sa.String(12), nullable=False, unique=True),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False),
    sa.Column("user_id", Id(), sa.ForeignKey("users.id")),
    sa.Column("org_id", Id(), sa.ForeignKey("organizations.id")),
    sa.Column("blob_id", Id(), sa.ForeignKey("blobs.id")),
    sa.Column("role", sa.SmallInteger, nullable=False),
    sa.Column("description", sa.String(256), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("expire_time", Time()),
    sa.Column("revoke_time", Time()),
    sa.Index("ix_api_keys_org_id_id", "org_id", "id"),
    sa.Index("ix_api_keys_blob_id_id", "blob_id", "id"),
)


def _record(row: sa.Row[*tuple[Any, ...]]) -> ApiKey:
    columns = row._mapping
    return ApiKey(**{**columns, "role": Role(columns["role"])})


async def insert(tx: Transaction, key: ApiKey) -> None:
    """Store a new key's record."""
    await tx.execute(api_keys.insert(), asdict(key))


async def get(tx: Transaction, key_id: str) -> ApiKey | None:
    """A key by its id."""
    row = (await tx.execute(api_keys.select().where(api_keys.c.id == key_id))).first()
    return _record(row) if row else None


async def by_public_id(tx: Transaction, public_id: str) -> ApiKey | None:
    """A key by the public part of itself."""
    row = (await tx.execute(api_keys.select().where(api_keys.c.public_id == public_id))).first()
    return _record(row) if row else None


async def page(tx: Transaction, org_id: str, blob_id: str | None, *, after: str, limit: int) -> list[ApiKey]:
    """The keys of an organization itself, or of one blob, by id, those after `after`."""
    query = api_keys.select().where(api_keys.c.org_id == org_id, api_keys.c.id > after)
    query = query.where(api_keys.c.blob_id == blob_id if blob_id else api_keys.c.blob_id.is_(None))
    return [_record(row) for row in await tx.execute(query.order_by(api_keys.c.id).limit(limit))]


async def revoke(tx: Transaction, key_id: str, now: datetime) -> None:
    """Revoke a key; one that is revoked keeps the time of that."""
    await tx.execute(
        api_keys.update().where(api_keys.c.id == key_id, api_keys.c.revoke_time.is_(None)).values(revoke_time=now)
    )
