"""The records of API keys, without the secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from blobhub_server.blobtypes.access import Place, Role
from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.parts import delete_some
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.presence import place_is_there
from blobhub_server.db.records import Mapper
from blobhub_server.db.schema import Choice, Id, Json, Time, metadata
from blobhub_server.platform.rules.api_key import ApiKey

_OF_NO_BLOB = sa.text("blob_id IS NULL")

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("public_id", sa.String(12), nullable=False, unique=True),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False),
    sa.Column("user_id", Id(), sa.ForeignKey("users.id")),
    sa.Column("organization_id", Id()),
    sa.Column("blob_id", Id()),
    sa.Column("role", Choice(Role, sa.SmallInteger()), nullable=False),
    sa.Column("description", sa.String(256), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("expire_time", Time()),
    sa.Column("revoke_time", Time()),
    sa.Column("last_used_time", Time()),
    sa.Column("etag", Id(), nullable=False),
    sa.Column("queues", Json(), nullable=False, server_default="[]"),
    sa.Index("ix_api_keys_user_id_id", "user_id", "id"),
    sa.Index("ix_api_keys_organization_id", "organization_id"),
    sa.Index("ix_api_keys_organization", "organization_id", "id", sqlite_where=_OF_NO_BLOB, postgresql_where=_OF_NO_BLOB),
    sa.Index("ix_api_keys_blob_id_id", "blob_id", "id"),
)

_KEY = Mapper(ApiKey, api_keys)
_THERE = place_is_there(api_keys.c.organization_id, api_keys.c.blob_id)
_INSERT = Prepared(api_keys.insert())


async def insert(tx: Transaction, key: ApiKey) -> None:
    """Store a new key's record."""
    await tx.run(_INSERT, **_KEY.row(key))


_GET = Prepared(_KEY.select().where(api_keys.c.id == sa.bindparam("key"), _THERE), _KEY)


async def get(tx: Transaction, key_id: str, *, lock: bool = False) -> ApiKey | None:
    """A key by its id, unless what it is for was deleted. With `lock` nobody else changes it until the transaction ends."""
    return await tx.first(_GET.locking if lock else _GET, key=key_id)


_BY_PUBLIC_ID = Prepared(_KEY.select().where(api_keys.c.public_id == sa.bindparam("presented"), _THERE), _KEY)


async def get_by_public_id(tx: Transaction, public_id: str) -> ApiKey | None:
    """A key by its public id, unless what it is for was deleted."""
    return await tx.first(_BY_PUBLIC_ID, presented=public_id)


async def page(
    tx: Transaction, place: Place, *, order_by: str, valid_at: datetime | None, after: str, limit: int
) -> list[ApiKey]:
    """The keys of a user, of an organization itself, or of one blob, in an order, those after `after`.

    With `valid_at` only those that are neither revoked nor expired then.
    """
    query = _KEY.select().where(_is_at(place))
    if valid_at:
        query = query.where(*_valid(valid_at))
    return _KEY.all(await tx.execute(Order.parse(api_keys, order_by).apply(query, after, limit)))


def _valid(now: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    lasting = sa.or_(api_keys.c.expire_time.is_(None), api_keys.c.expire_time > now)
    return api_keys.c.revoke_time.is_(None), lasting


async def count(tx: Transaction, organization_id: str, now: datetime) -> int:
    """How many keys that are neither revoked nor expired an organization and its blobs have."""
    return await _count(tx, api_keys.c.organization_id == organization_id, now)


async def count_personal(tx: Transaction, user_id: str, now: datetime) -> int:
    """How many keys that are neither revoked nor expired a user has."""
    return await _count(tx, api_keys.c.user_id == user_id, now)


async def _count(tx: Transaction, whose: sa.ColumnElement[bool], now: datetime) -> int:
    query = sa.select(sa.func.count()).where(whose, *_valid(now), _THERE)
    return int((await tx.execute(query)).scalar_one())


async def update(tx: Transaction, key_id: str, **values: Any) -> None:
    """Change some columns."""
    await tx.execute(api_keys.update().where(api_keys.c.id == key_id).values(values))


async def collect(tx: Transaction, parent_ids: Sequence[str], rows: int) -> int:
    """Remove so many keys of deleted organizations or blobs at most; return how many were removed."""
    theirs = sa.or_(api_keys.c.blob_id.in_(parent_ids), api_keys.c.organization_id.in_(parent_ids))
    return await delete_some(tx, api_keys, theirs, rows, in_order=True)


def _is_at(place: Place) -> sa.ColumnElement[bool]:
    if place.user_id is not None:
        return api_keys.c.user_id == place.user_id
    if place.blob_id is not None:
        return api_keys.c.blob_id == place.blob_id
    return sa.and_(api_keys.c.organization_id == place.organization_id, _OF_NO_BLOB)


_UNLOCKED = (
    sa.select(api_keys.c.id).where(api_keys.c.id == sa.bindparam("key_id")).with_for_update(key_share=True, skip_locked=True)
)
_UPDATE_LAST_USED = Prepared(
    api_keys.update().where(api_keys.c.id.in_(_UNLOCKED)).values(last_used_time=sa.bindparam("used_time"))
)


async def update_last_used(tx: Transaction, times: Mapping[str, datetime]) -> None:
    """Update when keys were last used, except for keys that are locked by others.

    The keys are not locked in the order of their ids, so waiting for a lock could deadlock.
    """
    await tx.run_each(_UPDATE_LAST_USED, [{"key_id": key_id, "used_time": time} for key_id, time in times.items()])
