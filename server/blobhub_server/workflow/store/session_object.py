"""Session objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.prepared import Prepared, is_one_of, upsert
from blobhub_server.db.records import Mapper, Pair, Scalar
from blobhub_server.db.schema import Id, IdQuery, Name, Time, metadata
from blobhub_server.workflow.rules.session_object import SessionObject
from blobhub_server.workflow.store.session import select_in_blobs

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
_OBJECT = Mapper(SessionObject, session_objects)
_SESSION = _columns.session_id == sa.bindparam("session")

_PUT = Prepared(
    upsert(
        session_objects,
        keys=(_columns.session_id, _columns.alias),
        changed=(_columns.type, _columns.value, _columns.size, _columns.update_time, _columns.etag),
    )
)


async def put(tx: Transaction, objects: Sequence[SessionObject]) -> None:
    """Create or replace objects; one that is replaced keeps its `create_time`."""
    await tx.run_each(_PUT, [_OBJECT.row(item) for item in objects])


_AT = (_SESSION, _columns.alias == sa.bindparam("wanted"))
_GET = Prepared(_OBJECT.select().where(*_AT), _OBJECT)


async def get(tx: Transaction, session_id: str, alias: str) -> SessionObject | None:
    """One object with its value."""
    return await tx.first(_GET, session=session_id, wanted=alias)


_VALUES = Prepared(
    sa.select(_columns.alias, _columns.value).where(_SESSION, is_one_of(_columns.alias, "aliases")),
    Pair(Scalar(str, "alias"), Scalar(str, "value")),
)


async def values(tx: Transaction, session_id: str, aliases: Iterable[str]) -> dict[str, Any]:
    """The values of those of the named objects that exist, by alias."""
    found = await tx.all(_VALUES, session=session_id, aliases=sorted(aliases))
    return {alias: json.loads(value) for alias, value in found}


async def page(
    tx: Transaction, session_id: str, *, order_by: str, prefix: str, after: str, limit: int
) -> list[SessionObject]:
    """A session's objects in an order, those after `after`, without their values."""
    shown = (column for column in _columns if column is not _columns.value)
    query, order = sa.select(*shown, sa.literal("").label("value")), Order.parse(session_objects, order_by)
    query = query.where(_columns.session_id == session_id)
    if prefix:
        query = query.where(order.begins(_columns.alias, prefix, after))
    return _OBJECT.all(await tx.execute(order.apply(query, after, limit)))


_DELETE = Prepared(session_objects.delete().where(*_AT))


async def delete(tx: Transaction, session_id: str, alias: str) -> None:
    """Remove one object."""
    await tx.run(_DELETE, session=session_id, wanted=alias)


async def delete_all(tx: Transaction, blob_ids: IdQuery) -> None:
    """Remove the objects of all sessions of blobs."""
    await tx.execute(session_objects.delete().where(session_objects.c.session_id.in_(select_in_blobs(blob_ids))))
