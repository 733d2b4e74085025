"""Session objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.parts import delete_large
from blobhub_server.db.prepared import Prepared, is_one_of, upsert
from blobhub_server.db.records import Mapper, Pair, Scalar
from blobhub_server.db.schema import Id, Name, Time, metadata
from blobhub_server.workflow.rules.session_object import SessionObject

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


_NAMED = (_SESSION, is_one_of(_columns.alias, "aliases"))
SMALL_BYTES = 8 << 10
"""Up to how many bytes a value is read with its etag."""


@dataclass(frozen=True, slots=True)
class _Content:
    """An object's etag, size and value, as JSON text; None for a value that was not read."""

    alias: str
    etag: str
    size: int
    value: str | None


_CONTENT = Mapper(_Content, session_objects)
_SMALL_CONTENT = Mapper(
    _Content, session_objects, looked_up={"value": sa.case((_columns.size <= SMALL_BYTES, _columns.value))}
)
_SIZE = Mapper(_Content, session_objects, looked_up={"value": sa.null()})
_READ = Prepared(_CONTENT.select().where(*_NAMED), _CONTENT)
_READ_SMALL = Prepared(_SMALL_CONTENT.select().where(*_NAMED), _SMALL_CONTENT)
_READ_SIZES = Prepared(_SIZE.select().where(*_NAMED), _SIZE)


async def read(tx: Transaction, session_id: str, aliases: Iterable[str]) -> list[tuple[str, str, str]]:
    """Alias, etag and value, as JSON text, of the named objects."""
    found = await tx.all(_READ, session=session_id, aliases=sorted(aliases))
    return [(item.alias, item.etag, item.value or "") for item in found]


async def read_small(tx: Transaction, session_id: str, aliases: Iterable[str]) -> list[tuple[str, str, int, str | None]]:
    """Alias, etag, size and value; no value of more than `SMALL_BYTES`, which may be known by its etag."""
    found = await tx.all(_READ_SMALL, session=session_id, aliases=sorted(aliases))
    return [(item.alias, item.etag, item.size, item.value) for item in found]


async def read_sizes(tx: Transaction, session_id: str, aliases: Iterable[str]) -> list[tuple[str, str, int, None]]:
    """The same without any values."""
    found = await tx.all(_READ_SIZES, session=session_id, aliases=sorted(aliases))
    return [(item.alias, item.etag, item.size, None) for item in found]


_ETAGS = Prepared(
    sa.select(_columns.session_id, _columns.alias, _columns.etag).where(
        is_one_of(_columns.session_id, "sessions"), is_one_of(_columns.alias, "aliases")
    ),
    Pair(Pair(Scalar(str, "session_id"), Scalar(str, "alias")), Scalar(str, "etag")),
)


async def etags(tx: Transaction, session_ids: Iterable[str], aliases: Iterable[str]) -> dict[tuple[str, str], str]:
    """The etags of the objects with these aliases in these sessions, by session and alias."""
    return dict(await tx.all(_ETAGS, sessions=sorted(session_ids), aliases=sorted(aliases)))


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


async def collect(tx: Transaction, session_ids: Sequence[str], rows: int) -> int:
    """Remove so many objects of sessions, about, and fewer of large ones; return how many rows they count for."""
    return await delete_large(tx, session_objects, _columns.session_id.in_(session_ids), rows, _columns.size)
