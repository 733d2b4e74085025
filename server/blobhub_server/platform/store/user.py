"""Users, and the roles they hold on organizations and blobs."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.schema import Id, Time, metadata
from blobhub_server.platform.rules.access import Role

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("administrator", sa.Boolean, nullable=False),
    sa.Column("create_time", Time(), nullable=False),
)

members = sa.Table(
    "members",
    metadata,
    sa.Column("user_id", Id(), sa.ForeignKey("users.id"), primary_key=True),
    sa.Column("resource_id", Id(), primary_key=True),
    sa.Column("role", sa.SmallInteger, nullable=False),
    sa.Index("ix_members_resource_id", "resource_id"),
)


async def insert(tx: Transaction, user_id: str, name: str, *, administrator: bool, now: datetime) -> None:
    """Store a new user."""
    row = {"id": user_id, "name": name, "administrator": administrator, "create_time": now}
    await tx.execute(users.insert(), row)


async def administrator(tx: Transaction) -> str | None:
    """The first administrator's id; None on a database that has never been started on."""
    query = sa.select(users.c.id).where(users.c.administrator).order_by(users.c.id).limit(1)
    return (await tx.execute(query)).scalar_one_or_none()


async def is_administrator(tx: Transaction, user_id: str) -> bool:
    """Whether a user administers the server."""
    return bool((await tx.execute(sa.select(users.c.administrator).where(users.c.id == user_id))).scalar())


async def add_member(tx: Transaction, user_id: str, resource_id: str, role: Role) -> None:
    """Give a user a role on an organization or a blob."""
    await tx.execute(members.insert(), {"user_id": user_id, "resource_id": resource_id, "role": int(role)})


async def membership(tx: Transaction, user_id: str, resource_ids: list[str]) -> Role:
    """The strongest role that a user holds on any of the resources."""
    query = sa.select(sa.func.max(members.c.role)).where(
        members.c.user_id == user_id, members.c.resource_id.in_(resource_ids)
    )
    return Role((await tx.execute(query)).scalar() or 0)
