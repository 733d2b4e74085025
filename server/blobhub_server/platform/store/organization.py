"""Organizations."""

from __future__ import annotations

from dataclasses import asdict

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.schema import Id, Time, metadata
from blobhub_server.platform.rules.access import Caller
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.store.user import members

organizations = sa.Table(
    "organizations",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("alias", sa.String(42), nullable=False, unique=True),
    sa.Column("description", sa.String(256), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Column("etag", Id(), nullable=False),
)


async def insert(tx: Transaction, organization: Organization) -> None:
    """Store a new organization. Raises IntegrityError when the alias is taken."""
    await tx.execute(organizations.insert(), asdict(organization))


async def find(tx: Transaction, *, id_: str = "", alias: str = "") -> Organization | None:
    """One organization, by id or by alias."""
    which = organizations.c.id == id_ if id_ else organizations.c.alias == alias
    row = (await tx.execute(organizations.select().where(which))).first()
    return Organization(*row) if row else None


async def page(tx: Transaction, caller: Caller, *, after: str, limit: int) -> list[Organization]:
    """The organizations that a caller may see, by id, those after `after`."""
    query = organizations.select().where(organizations.c.id > after)
    if not caller.administrator:
        if caller.user_id is not None:
            mine = sa.select(members.c.resource_id).where(members.c.user_id == caller.user_id)
            query = query.where(organizations.c.id.in_(mine))
        else:
            query = query.where(organizations.c.id == (None if caller.blob_id else caller.org_id))
    rows = await tx.execute(query.order_by(organizations.c.id).limit(limit))
    return [Organization(*row) for row in rows]
