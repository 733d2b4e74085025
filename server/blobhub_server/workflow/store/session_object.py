"""Session objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.schema import Id, Name, Selected, Time, metadata
from blobhub_server.workflow.rules.session_object import SessionObject
from blobhub_server.workflow.store.session import of_blobs

session_objects = sa.Table(
    "session_objects",
    metadata,
    sa.Column("session_id", Id(), sa.ForeignKey("sessions.id"), primary_key=True),
    sa.Column("alias", Name(256), primary_key=True),
    sa.Column("type", sa.String(16), nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Column("etag", sa.String(64), nullable=False),
)

_columns = session_objects.c


async def put(tx: Transaction, objects: Sequence[SessionObject]) -> None:
    """Create or replace objects; one that is replaced keeps its `create_time`."""
    changed = (_columns.type, _columns.value, _columns.size, _columns.update_time, _columns.etag)
    insert = tx.upsert(session_objects, keys=(_columns.session_id, _columns.alias), changed=changed)
    await tx.execute(insert, [asdict(item) for item in objects])


async def get(tx: Transaction, session_id: str, alias: str) -> SessionObject | None:
    """One object with its value."""
    query = session_objects.select().where(_columns.session_id == session_id, _columns.alias == alias)
    row = (await tx.execute(query)).mappings().first()
    return SessionObject(**row) if row else None


async def values(tx: Transaction, session_id: str, aliases: Iterable[str]) -> dict[str, Any]:
    """The values of those of the named objects that exist, by alias."""
    query = sa.select(_columns.alias, _columns.value).where(
        _columns.session_id == session_id, _columns.alias.in_(sorted(aliases))
    )
    rows = await tx.execute(query)
    return {row[0]: json.loads(row[1]) for row in rows}


async def page(tx: Transaction, session_id: str, *, prefix: str, after: str, limit: int) -> list[SessionObject]:
    """A session's objects by alias, those after `after`, without their values."""
    shown = (column for column in _columns if column is not _columns.value)
    query, order = sa.select(*shown, sa.literal("").label("value")), Order((_columns.alias,))
    query = query.where(_columns.session_id == session_id)
    if prefix:
        query = query.where(order.begins(_columns.alias, prefix, after))
    return [SessionObject(**row) for row in (await tx.execute(order.apply(query, after, limit))).mappings()]


async def delete(tx: Transaction, session_id: str, alias: str) -> None:
    """Remove one object."""
    await tx.execute(session_objects.delete().where(_columns.session_id == session_id, _columns.alias == alias))


async def delete_all(tx: Transaction, blob_ids: Selected) -> None:
    """Remove the objects of all sessions of blobs."""
    await tx.execute(session_objects.delete().where(session_objects.c.session_id.in_(of_blobs(blob_ids))))
