"""Metadata records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.schema import Id, Name, Time, metadata
from blobhub_server.platform.rules.metadata import MetadataRecord

metadata_records = sa.Table(
    "metadata_records",
    metadata,
    sa.Column("target_id", Id(), primary_key=True),
    sa.Column("blob_id", Id(), sa.ForeignKey("blobs.id"), nullable=False),
    sa.Column("key", Name(256), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("description", sa.String(256), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Column("etag", Id(), nullable=False),
    sa.Index("ix_metadata_records_blob_id", "blob_id"),
)
"""`target_id` is a blob or one of its revisions."""

_columns = metadata_records.c
_SELECT = sa.select(*(_columns[name] for name in MetadataRecord.__slots__))


async def insert(tx: Transaction, record: MetadataRecord) -> None:
    """Store a new record. The caller has locked the blob, and seen that there is none of that key."""
    await tx.execute(metadata_records.insert(), asdict(record))


async def get(tx: Transaction, target_id: str, key: str) -> MetadataRecord | None:
    """One record of a target itself."""
    row = (await tx.execute(_SELECT.where(*_at(target_id, key)))).first()
    return MetadataRecord(*row) if row else None


async def page(tx: Transaction, target_id: str, *, prefix: str, after: str, limit: int) -> list[MetadataRecord]:
    """The records of a target itself by key, those after `after`."""
    return await _page(tx, _SELECT.where(_columns.target_id == target_id), prefix, after, limit)


async def resolve(
    tx: Transaction, blob_id: str, revision_id: str, *, keys: Sequence[str], prefix: str, after: str, limit: int
) -> list[MetadataRecord]:
    """What holds for a revision, by key, those after `after`: its own record, else its blob's. No `keys` means all."""
    own = metadata_records.alias("own")
    overridden = sa.exists().where(own.c.target_id == revision_id, own.c.key == _columns.key)
    of_blob = sa.and_(_columns.target_id == blob_id, ~overridden)
    query = _SELECT.where(sa.or_(_columns.target_id == revision_id, of_blob))
    if keys:
        query = query.where(_columns.key.in_(keys))
    return await _page(tx, query, prefix, after, limit)


async def _page(tx: Transaction, query: sa.Select[Any], prefix: str, after: str, limit: int) -> list[MetadataRecord]:
    if prefix:
        query = query.where(_columns.key >= prefix, _columns.key < prefix + "\U0010ffff")
    query = query.where(_columns.key > after).order_by(_columns.key).limit(limit)
    return [MetadataRecord(*row) for row in await tx.execute(query)]


async def count(tx: Transaction, target_id: str) -> int:
    """How many records a target has."""
    query = sa.select(sa.func.count()).where(_columns.target_id == target_id)
    return int((await tx.execute(query)).scalar_one())


async def update(tx: Transaction, target_id: str, key: str, **values: Any) -> None:
    """Change some columns of a record."""
    await tx.execute(metadata_records.update().where(*_at(target_id, key)).values(values))


async def delete(tx: Transaction, target_id: str, key: str) -> None:
    """Remove one record."""
    await tx.execute(metadata_records.delete().where(*_at(target_id, key)))


async def delete_all(tx: Transaction, target_id: str) -> None:
    """Remove all records of a blob itself, or of a revision."""
    await tx.execute(metadata_records.delete().where(_columns.target_id == target_id))


async def delete_all_of_blob(tx: Transaction, blob_id: str) -> None:
    """Remove all records of a blob and of its revisions."""
    await tx.execute(metadata_records.delete().where(_columns.blob_id == blob_id))


def _at(target_id: str, key: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return _columns.target_id == target_id, _columns.key == key
