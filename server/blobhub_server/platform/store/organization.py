"""Organizations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from blobhub_server.blobtypes.access import Caller
from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.prepared import Prepared, is_one_of
from blobhub_server.db.records import Mapper, Pair, Scalar
from blobhub_server.db.schema import Id, Name, Time, metadata
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.store.member import members

organizations = sa.Table(
    "organizations",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("alias", Name(63), nullable=False, unique=True),
    sa.Column("description", sa.String(256), nullable=False),
    sa.Column("visibility", sa.String(16), nullable=False),
    sa.Column("blob_count", sa.BigInteger, nullable=False),
    sa.Column("creator_id", Id()),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Column("etag", Id(), nullable=False),
    sa.Index("ix_organizations_creator_id", "creator_id"),
    sa.Index("ix_organizations_update_time_id", "update_time", "id"),
    sa.Index("ix_organizations_visibility_id", "visibility", "id"),
    sa.Index("ix_organizations_visibility_alias", "visibility", "alias"),
    sa.Index("ix_organizations_visibility_update_time_id", "visibility", "update_time", "id"),
)
"""`creator_id` is the user whose number of organizations it counts for."""

_ORGANIZATION = Mapper(Organization, organizations)
_ID = organizations.c.id == sa.bindparam("organization")
_BY_ID = Prepared(_ORGANIZATION.select().where(_ID), _ORGANIZATION)
_BY_ALIAS = Prepared(_ORGANIZATION.select().where(organizations.c.alias == sa.bindparam("organization")), _ORGANIZATION)
_INSERT = Prepared(organizations.insert())


async def insert(tx: Transaction, organization: Organization, creator_id: str) -> None:
    """Store a user's new organization. Raises IntegrityError when the alias is taken."""
    await tx.run(_INSERT, **_ORGANIZATION.row(organization), creator_id=creator_id)


_COUNT_CREATED_BY = Prepared(
    sa.select(sa.func.count()).where(organizations.c.creator_id == sa.bindparam("user")), Scalar(int)
)


async def count_created_by(tx: Transaction, user_id: str) -> int:
    """How many existing organizations a user has created."""
    return await tx.one(_COUNT_CREATED_BY, user=user_id)


async def find(tx: Transaction, *, id_: str = "", alias: str = "", lock: bool = False) -> Organization | None:
    """One organization, by id or by alias. With `lock` nobody else changes it until the transaction ends."""
    query = _BY_ID if id_ else _BY_ALIAS
    return await tx.first(query.locking if lock else query, organization=id_ or alias)


_ALIASES = Prepared(
    sa.select(organizations.c.id, organizations.c.alias).where(is_one_of(organizations.c.id, "wanted")),
    Pair(Scalar(str, "id"), Scalar(str, "alias")),
)


async def aliases(tx: Transaction, organization_ids: Sequence[str]) -> dict[str, str]:
    """The aliases of organizations, by id; of those that there are."""
    return dict(await tx.all(_ALIASES, wanted=organization_ids))


async def page(
    tx: Transaction, caller: Caller, *, order_by: str, alias_prefix: str, visibility: str, after: str, limit: int
) -> list[Organization]:
    """The organizations on which a caller holds a role, in an order, those after `after`.

    A user's are found by their memberships, which are in the order of creation; other orders need a sort.
    """
    query, order = _ORGANIZATION.select(), Order.parse(organizations, order_by)
    if caller.user_id is not None and not caller.administrator:
        query = query.join(members, members.c.resource_id == organizations.c.id).where(members.c.user_id == caller.user_id)
        order = Order.parse(organizations, order_by, joined=members.c.resource_id)
    elif not caller.administrator:
        query = query.where(organizations.c.id == (None if caller.blob_id else caller.organization_id))
    if alias_prefix:
        query = query.where(order.begins(organizations.c.alias, alias_prefix, after))
    if visibility:
        query = query.where(organizations.c.visibility == visibility)
    return _ORGANIZATION.all(await tx.execute(order.apply(query, after, limit)))


async def update(tx: Transaction, organization_id: str, **values: Any) -> None:
    """Change some columns. Raises IntegrityError when the alias is taken."""
    await tx.execute(organizations.update().where(organizations.c.id == organization_id).values(values))


_COUNT_BLOBS = Prepared(
    organizations.update()
    .where(_ID)
    .values(blob_count=organizations.c.blob_count + sa.bindparam("added"))
    .returning(organizations.c.blob_count),
    Scalar(int),
)


async def count_blobs(tx: Transaction, organization_id: str, added: int) -> int | None:
    """Add to the number of blobs; return the new number, None when the organization is gone.

    The row stays locked until the commit, so that no blob is added to an organization that is being deleted.
    """
    return await tx.first(_COUNT_BLOBS, organization=organization_id, added=added)


_BLOB_COUNT = Prepared(sa.select(organizations.c.blob_count).where(_ID), Scalar(int))


async def blob_count(tx: Transaction, organization_id: str) -> int:
    """How many blobs an organization holds."""
    return await tx.first(_BLOB_COUNT, organization=organization_id) or 0


async def delete(tx: Transaction, organization_id: str) -> None:
    """Remove the row of an organization, which is not there any more. What belongs to it is left, for a deletion."""
    await tx.execute(organizations.delete().where(organizations.c.id == organization_id))
