"""Users."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.records import Mapper
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

_USER = Mapper(User, users)
_SELECT = _USER.select()
_INSERT = Prepared(users.insert())


async def insert(tx: Transaction, user: User) -> None:
    """Store a new user. Raises IntegrityError when the name, or the issuer's subject, is taken."""
    await tx.run(_INSERT, **_USER.row(user))


_GET = Prepared(_SELECT.where(users.c.id == sa.bindparam("user")), _USER)


async def get(tx: Transaction, user_id: str, *, lock: bool = False) -> User | None:
    """One user. With `lock` nobody else changes them until the transaction ends."""
    return await tx.first(_GET.locking if lock else _GET, user=user_id)


_GET_BY_NAME = Prepared(_SELECT.where(users.c.name == sa.bindparam("wanted")), _USER)


async def get_by_name(tx: Transaction, name: str) -> User | None:
    """One user by name."""
    return await tx.first(_GET_BY_NAME, wanted=name)


_GET_BY_SUBJECT = Prepared(
    _SELECT.where(users.c.issuer == sa.bindparam("iss"), users.c.subject == sa.bindparam("sub")), _USER
)


async def get_by_subject(tx: Transaction, issuer: str, subject: str) -> User | None:
    """The user whom an issuer's tokens name by a subject."""
    return await tx.first(_GET_BY_SUBJECT, iss=issuer, sub=subject)


async def page(tx: Transaction, *, order_by: str, name_prefix: str, after: str, limit: int) -> list[User]:
    """Users in an order, those after `after`."""
    query, order = _SELECT, Order.parse(users, order_by)
    if name_prefix:
        query = query.where(order.begins(users.c.name, name_prefix, after))
    return _USER.all(await tx.execute(order.apply(query, after, limit)))


async def update(tx: Transaction, user_id: str, **values: Any) -> None:
    """Change some columns."""
    await tx.execute(users.update().where(users.c.id == user_id).values(values))


_ADMINISTRATORS = Prepared(_SELECT.where(users.c.administrator, sa.not_(users.c.disabled)).order_by(users.c.id), _USER)


async def administrators(tx: Transaction, *, lock: bool = False) -> list[User]:
    """The administrators who are not disabled, oldest first; none on a new database."""
    return await tx.all(_ADMINISTRATORS.locking if lock else _ADMINISTRATORS)
