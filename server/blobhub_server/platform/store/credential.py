"""Credentials: their records, and their bodies, sealed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction, locked
from blobhub_server.db.schema import Id, Name, Selected, Time, metadata
from blobhub_server.platform.rules.credential import Credential, Sealed

credentials = sa.Table(
    "credentials",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("owner_id", Id(), nullable=False),
    sa.Column("user_id", Id()),
    sa.Column("org_id", Id()),
    sa.Column("blob_id", Id()),
    sa.Column("alias", Name(64), nullable=False),
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
    sa.Index("uq_credentials_owner_id_alias", "owner_id", "alias", unique=True),
    sa.Index("ix_credentials_master_key_id_id", "master_key_id", "id"),
)
"""`owner_id` is the id of the blob, organization or user whose the credential is."""

_RECORD = [credentials.c[name] for name in Credential.__slots__]
_SEALED = [credentials.c[name] for name in Sealed.__slots__]
_SELECT = sa.select(*_RECORD)
_SELECT_SEALED = sa.select(*_RECORD, *_SEALED)
_CREDENTIAL = credentials.c.id == sa.bindparam("credential")

Kept = tuple[Credential, Sealed]
"""A record and its sealed body."""


def _kept(row: Sequence[object]) -> Kept:
    return Credential(*row[: len(_RECORD)]), Sealed(*row[len(_RECORD) :])  # type: ignore[arg-type]  # columns in their order


async def insert(tx: Transaction, credential: Credential, sealed: Sealed) -> None:
    """Store a new credential. Raises IntegrityError when the owner has one of that alias."""
    row = {"owner_id": credential.owner_id, **asdict(credential), **asdict(sealed)}
    await tx.execute(credentials.insert(), row)


async def get(tx: Transaction, credential_id: str, *, lock: bool = False) -> Credential | None:
    """One record. With `lock` nobody else changes it until the transaction ends."""
    query = _SELECT.where(_CREDENTIAL)
    row = (await tx.execute(locked(query) if lock else query, {"credential": credential_id})).first()
    return Credential(*row) if row else None


async def find(tx: Transaction, owner_id: str, alias: str) -> Kept | None:
    """The credential that an owner has under an alias."""
    query = _SELECT_SEALED.where(credentials.c.owner_id == owner_id, credentials.c.alias == alias)
    row = (await tx.execute(query)).first()
    return _kept(row) if row else None


async def resolve(tx: Transaction, org_id: str, blob_id: str, alias: str) -> Kept | None:
    """The credential that an alias means to a blob: its own, else its organization's."""
    return await find(tx, blob_id, alias) or await find(tx, org_id, alias)


async def page(tx: Transaction, owner_id: str, *, after: str, limit: int) -> list[Credential]:
    """An owner's credentials by alias, those after `after`."""
    query = _SELECT.where(credentials.c.owner_id == owner_id, credentials.c.alias > after)
    return [Credential(*row) for row in await tx.execute(query.order_by(credentials.c.alias).limit(limit))]


async def count(tx: Transaction, owner_id: str) -> int:
    """How many credentials an owner has."""
    query = sa.select(sa.func.count()).where(credentials.c.owner_id == owner_id)
    return int((await tx.execute(query)).scalar_one())


async def update(tx: Transaction, credential: Credential, sealed: Sealed | None) -> None:
    """Change a record, and with `sealed` its body."""
    values = {name: getattr(credential, name) for name in ("description", "update_time", "etag")}
    await tx.execute(
        credentials.update().where(credentials.c.id == credential.id).values(values | (asdict(sealed) if sealed else {}))
    )


async def delete(tx: Transaction, credential_id: str) -> None:
    """Remove a credential."""
    await tx.execute(credentials.delete().where(credentials.c.id == credential_id))


async def delete_all(tx: Transaction, owner_ids: Selected) -> None:
    """Remove all credentials of owners. They are locked by id first, as they are when their master key is changed."""
    theirs = credentials.c.owner_id.in_(owner_ids)
    await tx.execute(locked(sa.select(credentials.c.id).where(theirs).order_by(credentials.c.id)))
    await tx.execute(credentials.delete().where(theirs))


async def master_key_ids(tx: Transaction) -> set[str]:
    """The ids of the master keys that bodies are sealed under. Costs a step in the index for each, not for each body."""
    found: set[str] = set()
    column, last = credentials.c.master_key_id, ""
    while True:
        following = (await tx.execute(sa.select(sa.func.min(column)).where(column > last))).scalar()
        if following is None:
            return found
        found.add(following)
        last = following


async def under(tx: Transaction, master_key_id: str, *, after: str, limit: int) -> list[Kept]:
    """Credentials sealed under a master key, by id, those after `after`; locked until the transaction ends."""
    query = _SELECT_SEALED.where(credentials.c.master_key_id == master_key_id, credentials.c.id > after)
    return [_kept(row) for row in await tx.execute(query.order_by(credentials.c.id).limit(limit).with_for_update())]


async def rewrap(tx: Transaction, rewrapped: Sequence[tuple[str, Sealed]]) -> None:
    """Store the keys of some credentials, wrapped anew."""
    changed = ("master_key_id", "key_nonce", "wrapped_key")
    rows = [{"credential": id_, **{name: getattr(sealed, name) for name in changed}} for id_, sealed in rewrapped]
    if rows:
        await tx.execute(credentials.update().where(_CREDENTIAL), rows)
