"""Metadata records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order, union
from blobhub_server.db.parts import delete_in_parts, delete_some
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.db.schema import Id, Name, Time, metadata
from blobhub_server.platform.rules.metadata import MetadataRecord

metadata_records = sa.Table(
    "metadata_records",
    metadata,
    sa.Column("parent_id", Id(), primary_key=True),
    sa.Column("blob_id", Id(), nullable=False),
    sa.Column("key", Name(256), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("description", sa.String(256), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Column("etag", Id(), nullable=False),
    sa.Index("ix_metadata_records_blob_id", "blob_id"),
)
"""`parent_id` is a blob or one of its revisions."""

_columns = metadata_records.c
_RECORD = Mapper(MetadataRecord, metadata_records)
_PARENT = _columns.parent_id == sa.bindparam("parent")
_BY_KEY = Order(columns=(_columns.key,))


_INSERT = Prepared(metadata_records.insert())


async def insert(tx: Transaction, record: MetadataRecord) -> None:
    """Store a new record. The caller has locked the blob, and seen that there is none of that key."""
    await tx.run(_INSERT, **_RECORD.row(record))


_GET = Prepared(_RECORD.select().where(_PARENT, _columns.key == sa.bindparam("wanted")), _RECORD)


async def get(tx: Transaction, parent_id: str, key: str) -> MetadataRecord | None:
    """One record of a parent itself."""
    return await tx.first(_GET, parent=parent_id, wanted=key)


async def page(
    tx: Transaction, parent_id: str, *, order_by: str, prefix: str, after: str, limit: int
) -> list[MetadataRecord]:
    """The records of a parent itself in an order, those after `after`."""
    order = Order.parse(metadata_records, order_by)
    return _RECORD.all(await tx.execute(order.apply(_select(parent_id, prefix, after, order), after, limit)))


async def resolve(
    tx: Transaction, blob_id: str, revision_id: str, *, keys: Sequence[str], prefix: str, after: str, limit: int
) -> list[MetadataRecord]:
    """What holds for a revision, by key, those after `after`: its own record, else its blob's. No `keys` means all."""
    queries = [_select(parent_id, prefix, after) for parent_id in (blob_id, revision_id)]
    if keys:
        queries = [query.where(_columns.key.in_(keys)) for query in queries]
    found = _RECORD.all(await tx.execute(union(_BY_KEY.apply(query, after, limit) for query in queries)))
    own = {record.key for record in found if record.parent_id == revision_id}
    return _BY_KEY.merge((record for record in found if record.parent_id == revision_id or record.key not in own), limit)


def _select(parent_id: str, prefix: str, after: str, order: Order = _BY_KEY) -> sa.Select[Any]:
    query = _RECORD.select().where(_columns.parent_id == parent_id)
    return query.where(order.begins(_columns.key, prefix, after)) if prefix else query


_COUNT = Prepared(sa.select(sa.func.count()).where(_PARENT), Scalar(int))


async def count(tx: Transaction, parent_id: str) -> int:
    """How many records a parent has."""
    return await tx.one(_COUNT, parent=parent_id)


async def update(tx: Transaction, parent_id: str, key: str, **values: Any) -> None:
    """Change some columns of a record."""
    await tx.execute(metadata_records.update().where(*_has_key(parent_id, key)).values(values))


async def delete(tx: Transaction, parent_id: str, key: str) -> None:
    """Remove one record."""
    await tx.execute(metadata_records.delete().where(*_has_key(parent_id, key)))


async def delete_all(tx: Transaction, parent_id: str) -> None:
    """Remove all records of a blob itself, or of a revision."""
    await delete_in_parts(tx, metadata_records, _columns.parent_id == parent_id)


async def collect(tx: Transaction, blob_ids: Sequence[str], rows: int) -> int:
    """Remove so many records of deleted blobs and of their revisions at most; return how many were removed."""
    return await delete_some(tx, metadata_records, _columns.blob_id.in_(blob_ids), rows)


def _has_key(parent_id: str, key: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return _columns.parent_id == parent_id, _columns.key == key
