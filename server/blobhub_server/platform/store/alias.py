"""Former aliases. A resource keeps them until it is deleted, so that no reference changes its meaning."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.parts import delete_some
from blobhub_server.db.prepared import Prepared, upsert
from blobhub_server.db.presence import blob_is_there, organization_is_there
from blobhub_server.db.records import Scalar
from blobhub_server.db.schema import Id, metadata

former_aliases = sa.Table(
    "former_aliases",
    metadata,
    sa.Column("parent_id", sa.String(36), primary_key=True),
    sa.Column("alias", sa.String(63), primary_key=True),
    sa.Column("resource_id", Id(), nullable=False),
    sa.Index("ix_former_aliases_resource_id", "resource_id"),
)
"""`parent_id` is the organization of a blob; empty for organizations."""


_KEY = (former_aliases.c.parent_id == sa.bindparam("parent"), former_aliases.c.alias == sa.bindparam("wanted"))
_resource = former_aliases.c.resource_id
_THERE = sa.or_(organization_is_there(_resource), blob_is_there(_resource))
_HOLDER = Prepared(sa.select(_resource).where(*_KEY, _THERE), Scalar(str))
# Replaces that of a resource which is deleted, and not collected yet.
_GIVE_UP = Prepared(upsert(former_aliases, keys=(former_aliases.c.parent_id, former_aliases.c.alias), changed=(_resource,)))
_TAKE_BACK = Prepared(former_aliases.delete().where(*_KEY))


async def find_former_holder(tx: Transaction, parent_id: str, alias: str) -> str | None:
    """The id of the resource that gave up an alias and is there."""
    return await tx.first(_HOLDER, parent=parent_id, wanted=alias)


async def give_up(tx: Transaction, parent_id: str, alias: str, resource_id: str) -> None:
    """Record that a resource gives up an alias."""
    await tx.run(_GIVE_UP, parent_id=parent_id, alias=alias, resource_id=resource_id)


async def take_back(tx: Transaction, parent_id: str, alias: str) -> None:
    """Remove a former alias, whose holder takes it again."""
    await tx.run(_TAKE_BACK, parent=parent_id, wanted=alias)


async def collect(tx: Transaction, resource_ids: Sequence[str], rows: int) -> int:
    """Remove so many former aliases of deleted resources at most; return how many were removed."""
    return await delete_some(tx, former_aliases, former_aliases.c.resource_id.in_(resource_ids), rows)
