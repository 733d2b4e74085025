"""Credentials: their records and their sealed bodies."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.parts import delete_some
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.presence import place_is_there
from blobhub_server.db.records import Mapper, Pair, Scalar
from blobhub_server.db.schema import Id, Name, Time, metadata
from blobhub_server.platform.rules.credential import Credential, SealedBody

credentials = sa.Table(
    "credentials",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("parent_id", Id(), nullable=False),
    sa.Column("user_id", Id()),
    sa.Column("organization_id", Id()),
    sa.Column("blob_id", Id()),
    sa.Column("alias", Name(63), nullable=False),
    sa.Column("type", sa.String(64), nullable=False),
    sa.Column("description", sa.String(256), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Column("etag", Id(), nullable=False),
    sa.Column("master_key_id", sa.String(16), nullable=False),
    sa.Column("key_nonce", sa.LargeBinary, nullable=False),
    sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
    sa.Column("nonce", sa.LargeBinary, nullable=False),
    sa.Column("ciphertext", sa.LargeBinary, nullable=False),
    sa.Index("uq_credentials_parent_id_alias", "parent_id", "alias", unique=True),
    sa.Index("ix_credentials_parent_id_type_alias", "parent_id", "type", "alias"),
    sa.Index("ix_credentials_master_key_id_id", "master_key_id", "id"),
)
"""`parent_id` is the id of the blob, organization or user that the credential belongs to."""

SealedCredential = tuple[Credential, SealedBody]
"""A record and its sealed body."""

_CREDENTIAL, _SEALED = Mapper(Credential, credentials), Mapper(SealedBody, credentials)
_SEALED_CREDENTIAL = Pair(_CREDENTIAL, _SEALED)
_SELECT = _CREDENTIAL.select(*_SEALED.columns)
_ID = credentials.c.id == sa.bindparam("credential")
_PARENT = credentials.c.parent_id == sa.bindparam("parent")

_INSERT = Prepared(credentials.insert())


async def insert(tx: Transaction, credential: Credential, sealed: SealedBody) -> None:
    """Store a new credential. Raises IntegrityError when the parent has one of that alias."""
    await tx.run(_INSERT, **_CREDENTIAL.row(credential), **_SEALED.row(sealed), parent_id=credential.parent_id)


_THERE = place_is_there(credentials.c.organization_id, credentials.c.blob_id)
_GET = Prepared(_CREDENTIAL.select().where(_ID, _THERE), _CREDENTIAL)


async def get(tx: Transaction, credential_id: str, *, lock: bool = False) -> Credential | None:
    """One record, unless its parent was deleted. With `lock` nobody else changes it until the transaction ends."""
    return await tx.first(_GET.locking if lock else _GET, credential=credential_id)


_FIND = Prepared(_SELECT.where(_PARENT, credentials.c.alias == sa.bindparam("alias"), _THERE), _SEALED_CREDENTIAL)


async def find(tx: Transaction, parent_id: str, alias: str) -> SealedCredential | None:
    """The credential that a parent has under an alias."""
    return await tx.first(_FIND, parent=parent_id, alias=alias)


async def resolve(tx: Transaction, organization_id: str, blob_id: str, alias: str) -> SealedCredential | None:
    """The credential that an alias names for a blob: the blob's own, else its organization's."""
    return await find(tx, blob_id, alias) or await find(tx, organization_id, alias)


async def page(
    tx: Transaction, parent_id: str, *, order_by: str, type_: str, alias_prefix: str, after: str, limit: int
) -> list[Credential]:
    """The credentials of a parent in an order, those after `after`."""
    order, query = Order.parse(credentials, order_by), _CREDENTIAL.select().where(credentials.c.parent_id == parent_id)
    if type_:
        query = query.where(credentials.c.type == type_)
    if alias_prefix:
        query = query.where(order.begins(credentials.c.alias, alias_prefix, after))
    return _CREDENTIAL.all(await tx.execute(order.apply(query, after, limit)))


_COUNT = Prepared(sa.select(sa.func.count()).where(_PARENT), Scalar(int))


async def count(tx: Transaction, parent_id: str) -> int:
    """How many credentials a parent has."""
    return await tx.one(_COUNT, parent=parent_id)


async def update(tx: Transaction, credential: Credential, sealed: SealedBody | None) -> None:
    """Change a record, and with `sealed` its body."""
    values = {name: getattr(credential, name) for name in ("description", "update_time", "etag")}
    body = _SEALED.row(sealed) if sealed else {}
    await tx.execute(credentials.update().where(credentials.c.id == credential.id).values(values | body))


async def delete(tx: Transaction, credential_id: str) -> None:
    """Remove a credential."""
    await tx.execute(credentials.delete().where(credentials.c.id == credential_id))


async def collect(tx: Transaction, parent_ids: Sequence[str], rows: int) -> int:
    """Remove so many credentials of deleted parents at most, in the order of a rotation; return how many were removed."""
    return await delete_some(tx, credentials, credentials.c.parent_id.in_(parent_ids), rows, in_order=True)


async def master_key_ids(tx: Transaction) -> set[str]:
    """The ids of the master keys that bodies are sealed under. Each costs one search of the index, however many bodies."""
    found: set[str] = set()
    column, last = credentials.c.master_key_id, ""
    while True:
        following = (await tx.execute(sa.select(sa.func.min(column)).where(column > last))).scalar()
        if following is None:
            return found
        found.add(following)
        last = following


_PAGE_BY_MASTER_KEY = Prepared(
    _SELECT.where(credentials.c.master_key_id == sa.bindparam("master_key"), credentials.c.id > sa.bindparam("after"))
    .order_by(credentials.c.id)
    .limit(sa.bindparam("most", type_=sa.BigInteger)),
    _SEALED_CREDENTIAL,
)


async def page_by_master_key(tx: Transaction, master_key_id: str, *, after: str, limit: int) -> list[SealedCredential]:
    """Credentials sealed under a master key, by id, those after `after`; locked until the transaction ends."""
    return await tx.all(_PAGE_BY_MASTER_KEY.locking, master_key=master_key_id, after=after, most=limit)


_REWRAPPED = ("master_key_id", "key_nonce", "wrapped_key")
_REWRAP = Prepared(credentials.update().where(_ID).values({name: sa.bindparam(name) for name in _REWRAPPED}))


async def rewrap(tx: Transaction, rewrapped: Sequence[tuple[str, SealedBody]]) -> None:
    """Store the keys of some credentials, wrapped anew."""
    rows = [{"credential": id_} | {name: getattr(sealed, name) for name in _REWRAPPED} for id_, sealed in rewrapped]
    await tx.run_each(_REWRAP, rows)
