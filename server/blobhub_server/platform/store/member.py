"""Members: the roles that users hold on organizations and blobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from blobhub_server.blobtypes.access import Role
from blobhub_server.db.engine import Transaction
from blobhub_server.db.schema import Id, Selected, Time, metadata
from blobhub_server.platform.rules.member import Member
from blobhub_server.platform.store.user import users

members = sa.Table(
    "members",
    metadata,
    sa.Column("user_id", Id(), sa.ForeignKey("users.id"), primary_key=True),
    sa.Column("resource_id", Id(), primary_key=True),
    sa.Column("org_id", Id(), nullable=False),
    sa.Column("blob_id", Id()),
    sa.Column("role", sa.SmallInteger, nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Column("etag", Id(), nullable=False),
    sa.Index("ix_members_resource_id_user_id", "resource_id", "user_id"),
    sa.Index("ix_members_org_id_user_id", "org_id", "user_id"),
)
"""`resource_id` is the blob, or, for a role on the whole organization, the organization."""

_SELECT = sa.select(
    members.c.user_id,
    sa.select(users.c.name).where(users.c.id == members.c.user_id).scalar_subquery(),  # a join is not begun at a page's key
    members.c.org_id,
    members.c.blob_id,
    members.c.role,
    members.c.create_time,
    members.c.update_time,
    members.c.etag,
)


def _record(row: Sequence[Any]) -> Member:
    user_id, name, org_id, blob_id, role, create_time, update_time, etag = row
    return Member(user_id, name, org_id, blob_id, Role(role), create_time, update_time, etag)


async def insert(tx: Transaction, member: Member) -> None:
    """Store a new member. Raises IntegrityError when the user is one already."""
    row = {
        "user_id": member.user_id,
        "resource_id": member.blob_id or member.org_id,
        "org_id": member.org_id,
        "blob_id": member.blob_id,
        "role": int(member.role),
        "create_time": member.create_time,
        "update_time": member.update_time,
        "etag": member.etag,
    }
    await tx.execute(members.insert(), row)


async def get(tx: Transaction, resource_id: str, user_id: str) -> Member | None:
    """One member of an organization or a blob."""
    query = _SELECT.where(members.c.resource_id == resource_id, members.c.user_id == user_id)
    row = (await tx.execute(query)).first()
    return _record(row) if row else None


async def page(tx: Transaction, resource_id: str, *, after: str, limit: int) -> list[Member]:
    """The members of an organization or a blob by user id, those after `after`."""
    query = _SELECT.where(members.c.resource_id == resource_id, members.c.user_id > after)
    return [_record(row) for row in await tx.execute(query.order_by(members.c.user_id).limit(limit))]


async def count(tx: Transaction, org_id: str) -> int:
    """How many roles are held on an organization and its blobs."""
    query = sa.select(sa.func.count()).where(members.c.org_id == org_id)
    return int((await tx.execute(query)).scalar_one())


async def admins(tx: Transaction, org_id: str) -> list[str]:
    """The user ids of an organization's admins who are not disabled. The caller has locked the organization."""
    query = (
        sa.select(members.c.user_id)
        .join(users, users.c.id == members.c.user_id)
        .where(members.c.resource_id == org_id, members.c.role == int(Role.ADMIN), sa.not_(users.c.disabled))
    )
    return list((await tx.execute(query)).scalars())


async def update(tx: Transaction, member: Member) -> None:
    """Give a member another role."""
    where = (members.c.resource_id == (member.blob_id or member.org_id), members.c.user_id == member.user_id)
    values = {"role": int(member.role), "update_time": member.update_time, "etag": member.etag}
    await tx.execute(members.update().where(*where).values(values))


async def delete(tx: Transaction, resource_id: str, user_id: str) -> None:
    """Take a member's role away."""
    await tx.execute(members.delete().where(members.c.resource_id == resource_id, members.c.user_id == user_id))


async def delete_all(tx: Transaction, resource_ids: Selected) -> None:
    """Take the roles on organizations or blobs away from everybody."""
    await tx.execute(members.delete().where(members.c.resource_id.in_(resource_ids)))


_MEMBERSHIP = sa.select(sa.func.max(members.c.role)).where(
    members.c.user_id == sa.bindparam("member"), members.c.resource_id.in_(sa.bindparam("resources", expanding=True))
)


async def membership(tx: Transaction, user_id: str, resource_ids: Sequence[str]) -> Role:
    """The strongest role that a user holds on any of the resources."""
    found = (await tx.execute(_MEMBERSHIP, {"member": user_id, "resources": list(resource_ids)})).scalar()
    return Role(found or 0)
