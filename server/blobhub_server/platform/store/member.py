"""Members: the roles that users hold on organizations and blobs."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from blobhub_server.blobtypes.access import Role
from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.parts import delete_some
from blobhub_server.db.prepared import Prepared, is_one_of
from blobhub_server.db.presence import place_is_there
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.db.schema import Choice, Id, Time, metadata
from blobhub_server.platform.rules.member import Member
from blobhub_server.platform.store.user import users

members = sa.Table(
    "members",
    metadata,
    sa.Column("user_id", Id(), sa.ForeignKey("users.id"), primary_key=True),
    sa.Column("resource_id", Id(), primary_key=True),
    sa.Column("organization_id", Id(), nullable=False),
    sa.Column("blob_id", Id()),
    sa.Column("role", Choice(Role, sa.SmallInteger()), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Column("etag", Id(), nullable=False),
    sa.Index("ix_members_resource_id_user_id", "resource_id", "user_id"),
    sa.Index("ix_members_resource_id_role_user_id", "resource_id", "role", "user_id"),
    sa.Index("ix_members_organization_id_user_id", "organization_id", "user_id"),
)
"""`resource_id` is the blob, or, for a role on the whole organization, the organization."""

# A subquery, because with a join the database does not start reading at the page's key.
_USER_NAME = sa.select(users.c.name).where(users.c.id == members.c.user_id).scalar_subquery()
_MEMBER = Mapper(Member, members, looked_up={"user_name": _USER_NAME})

_INSERT = Prepared(members.insert())


async def insert(tx: Transaction, member: Member) -> None:
    """Store a new member. Raises IntegrityError when the user is one already."""
    await tx.run(_INSERT, **_MEMBER.row(member), resource_id=member.blob_id or member.organization_id)


_AT = (members.c.resource_id == sa.bindparam("resource"), members.c.user_id == sa.bindparam("user"))
_GET = Prepared(_MEMBER.select().where(*_AT), _MEMBER)


async def get(tx: Transaction, resource_id: str, user_id: str) -> Member | None:
    """One member of an organization or a blob."""
    return await tx.first(_GET, resource=resource_id, user=user_id)


def order(order_by: str) -> Order:
    """The order of a list of members: by `user`, which is by the ids of the users."""
    return Order.parse(members, order_by.replace("user", "user_id"))


async def page(tx: Transaction, resource_id: str, *, order_by: str, role: Role, after: str, limit: int) -> list[Member]:
    """The members of an organization or a blob in an order, those after `after`; with a role only those who hold it."""
    query = _MEMBER.select().where(members.c.resource_id == resource_id)
    if role:
        query = query.where(members.c.role == role)
    return _MEMBER.all(await tx.execute(order(order_by).apply(query, after, limit)))


_COUNT = Prepared(
    sa.select(sa.func.count()).where(
        members.c.organization_id == sa.bindparam("organization"),
        place_is_there(members.c.organization_id, members.c.blob_id),
    ),
    Scalar(int),
)


async def count(tx: Transaction, organization_id: str) -> int:
    """How many roles are held on an organization and its blobs."""
    return await tx.one(_COUNT, organization=organization_id)


async def admins(tx: Transaction, organization_id: str) -> list[str]:
    """The user ids of an organization's admins who are not disabled. The caller has locked the organization."""
    query = (
        sa.select(members.c.user_id)
        .join(users, users.c.id == members.c.user_id)
        .where(members.c.resource_id == organization_id, members.c.role == Role.ADMIN, sa.not_(users.c.disabled))
    )
    return list((await tx.execute(query)).scalars())


async def update(tx: Transaction, member: Member) -> None:
    """Give a member another role."""
    where = (members.c.resource_id == (member.blob_id or member.organization_id), members.c.user_id == member.user_id)
    values = {"role": member.role, "update_time": member.update_time, "etag": member.etag}
    await tx.execute(members.update().where(*where).values(values))


_DELETE = Prepared(members.delete().where(*_AT))


async def delete(tx: Transaction, resource_id: str, user_id: str) -> None:
    """Take a member's role away."""
    await tx.run(_DELETE, resource=resource_id, user=user_id)


async def collect(tx: Transaction, resource_ids: Sequence[str], rows: int) -> int:
    """Remove so many roles on deleted organizations or blobs at most; return how many were removed."""
    return await delete_some(tx, members, members.c.resource_id.in_(resource_ids), rows)


_MEMBERSHIP = Prepared(
    sa.select(sa.func.max(members.c.role)).where(
        members.c.user_id == sa.bindparam("user"), is_one_of(members.c.resource_id, "resources")
    ),
    Scalar(Role),
)


async def membership(tx: Transaction, user_id: str, resource_ids: Sequence[str]) -> Role:
    """The strongest role that a user holds on any of the resources."""
    return await tx.first(_MEMBERSHIP, user=user_id, resources=resource_ids) or Role.NONE
