"""Users."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction, locked
from blobhub_server.db.keyset import Order
from blobhub_server.db.schema import Id, Name, Time, metadata
from blobhub_server.platform.rules.user import User

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("name", Name(128), nullable=False),
    sa.Column("display_name", sa.String(128), nullable=False),
    sa.Column("administrator", sa.Boolean, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("issuer", sa.String(512)),
    sa.Column("subject", sa.String(256)),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Column("etag", Id(), nullable=False),
    sa.Index("uq_users_name", "name", unique=True),
    sa.Index("uq_users_issuer_subject", "issuer", "subject", unique=True),
)

_columns = [users.c[name] for name in User.__slots__]
_SELECT = sa.select(*_columns)


async def insert(tx: Transaction, user: User) -> None:
    """Store a new user. Raises IntegrityError when the name, or the issuer's subject, is taken."""
    await tx.execute(users.insert(), asdict(user))


_GET = _SELECT.where(users.c.id == sa.bindparam("user_id"))


async def get(tx: Transaction, user_id: str, *, lock: bool = False) -> User | None:
    """One user. With `lock` nobody else changes them until the transaction ends."""
    query = locked(_GET) if lock else _GET
    row = (await tx.execute(query, {"user_id": user_id})).first()
    return User(*row) if row else None


async def named(tx: Transaction, name: str) -> User | None:
    """One user by name."""
    row = (await tx.execute(_SELECT.where(users.c.name == name))).first()
    return User(*row) if row else None


async def of_issuer(tx: Transaction, issuer: str, subject: str) -> User | None:
    """The user that an issuer calls so."""
    row = (await tx.execute(_SELECT.where(users.c.issuer == issuer, users.c.subject == subject))).first()
    return User(*row) if row else None


async def page(tx: Transaction, *, name_prefix: str, after: str, limit: int) -> list[User]:
    """Users by id, those after `after`."""
    query, order = _SELECT, Order((users.c.id,))
    if name_prefix:
        query = query.where(order.begins(users.c.name, name_prefix, after))
    return [User(*row) for row in await tx.execute(order.apply(query, after, limit))]


async def update(tx: Transaction, user_id: str, **values: Any) -> None:
    """Change some columns."""
    await tx.execute(users.update().where(users.c.id == user_id).values(values))


async def administrators(tx: Transaction, *, lock: bool = False) -> list[User]:
    """The administrators who are not disabled, oldest first; none on a database that has never been started on."""
    query = _SELECT.where(users.c.administrator, sa.not_(users.c.disabled)).order_by(users.c.id)
    return [User(*row) for row in await tx.execute(locked(query) if lock else query)]
