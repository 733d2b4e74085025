"""Blobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from blobhub_server.blobtypes.access import Caller
from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order, union
from blobhub_server.db.prepared import Prepared, is_one_of, share_rows
from blobhub_server.db.presence import organization_is_there
from blobhub_server.db.records import Mapper, Pair, Scalar
from blobhub_server.db.schema import Id, Name, Time, metadata
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.visibility import PRIVATE, PUBLIC
from blobhub_server.platform.store.member import members
from blobhub_server.platform.store.organization import organizations

_IS_PUBLIC = sa.text(f"visibility = '{PUBLIC}'")

blobs = sa.Table(
    "blobs",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("organization_id", Id(), nullable=False),
    sa.Column("alias", Name(63), nullable=False),
    sa.Column("type", sa.String(128), nullable=False),
    sa.Column("visibility", sa.String(16), nullable=False),
    sa.Column("description", sa.String(256), nullable=False),
    sa.Column("default_revision_id", Id(), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Column("etag", Id(), nullable=False),
    sa.Column("last_sequence", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Index("uq_blobs_organization_id_alias", "organization_id", "alias", unique=True),
    sa.Index("ix_blobs_organization_id_id", "organization_id", "id"),
    sa.Index("ix_blobs_organization_id_update_time_id", "organization_id", "update_time", "id"),
    sa.Index("ix_blobs_organization_id_type_id", "organization_id", "type", "id"),
    sa.Index("ix_blobs_organization_id_type_alias", "organization_id", "type", "alias"),
    sa.Index("ix_blobs_organization_id_type_update_time_id", "organization_id", "type", "update_time", "id"),
    sa.Index("ix_blobs_organization_id_visibility_id", "organization_id", "visibility", "id"),
    sa.Index("ix_blobs_organization_id_visibility_alias", "organization_id", "visibility", "alias"),
    sa.Index("ix_blobs_organization_id_visibility_update_time_id", "organization_id", "visibility", "update_time", "id"),
    sa.Index("ix_blobs_public", "type", "organization_id", "id", sqlite_where=_IS_PUBLIC, postgresql_where=_IS_PUBLIC),
)

_BLOB = Mapper(Blob, blobs)
_THERE = organization_is_there(blobs.c.organization_id)
_SELECT = _BLOB.select()
_INSERT = Prepared(blobs.insert())


async def insert(tx: Transaction, blob: Blob) -> None:
    """Store a new blob. Raises IntegrityError when the alias is taken."""
    await tx.run(_INSERT, **_BLOB.row(blob))


_ID = blobs.c.id == sa.bindparam("blob")
_GET = Prepared(_SELECT.where(_ID, _THERE), _BLOB)


async def get(tx: Transaction, blob_id: str, *, lock: bool = False) -> Blob | None:
    """One blob by id, if it is there (`db/presence.py`). With `lock` nobody else changes it until the transaction ends."""
    return await tx.first(_GET.locking if lock else _GET, blob=blob_id)


_ALIAS = blobs.c.alias == sa.bindparam("blob")
_BY_ID = Prepared(_SELECT.where(blobs.c.organization_id == sa.bindparam("organization"), _ALIAS, _THERE), _BLOB)
_BY_ALIAS = Prepared(
    _SELECT.join(organizations, organizations.c.id == blobs.c.organization_id).where(
        organizations.c.alias == sa.bindparam("organization"), _ALIAS
    ),
    _BLOB,
)


_FIND_ID = Prepared(
    sa.select(blobs.c.id).where(blobs.c.organization_id == sa.bindparam("organization"), _ALIAS), Scalar(str)
)


async def find_id(tx: Transaction, organization_id: str, alias: str) -> str | None:
    """The id of the blob with this alias in an organization."""
    return await tx.first(_FIND_ID, organization=organization_id, blob=alias)


async def find(tx: Transaction, organization: str, alias: str, *, by_id: bool) -> Blob | None:
    """One blob by its alias within an organization, itself named by alias or, with `by_id`, by id."""
    return await tx.first(_BY_ID if by_id else _BY_ALIAS, organization=organization, blob=alias)


async def page(
    tx: Transaction,
    organization_id: str,
    *,
    seen_by: Caller | None,
    order_by: str,
    type_: str,
    alias_prefix: str,
    visibility: str,
    after: str,
    limit: int,
) -> list[Blob]:
    """An organization's blobs in an order, those after `after`; with `seen_by` only those that this caller may see
    without a role on the organization.
    """
    order, here = Order.parse(blobs, order_by), _SELECT.where(blobs.c.organization_id == organization_id)
    filters: list[sa.ColumnElement[bool]] = []
    if type_:
        filters.append(blobs.c.type == type_)
    if visibility:
        filters.append(blobs.c.visibility == visibility)
    if alias_prefix:
        filters.append(order.begins(blobs.c.alias, alias_prefix, after))
    if seen_by is None:
        found = [order.apply(here.where(*filters), after, limit)]
    else:
        public, shared = here.where(blobs.c.visibility == PUBLIC), _shared_with(seen_by, organization_id)
        found = [order.apply(public.where(*filters), after, limit), order.after(shared.where(*filters), after)]
    return order.merge(_BLOB.all(await tx.execute(union(found))), limit)


def _shared_with(caller: Caller, organization_id: str) -> sa.Select[Any]:
    """All private blobs of an organization on which a caller holds a role of their own. They are few."""
    private = _SELECT.where(blobs.c.visibility == PRIVATE)
    if caller.user_id is None:
        return private.where(blobs.c.id == (caller.blob_id or ""), blobs.c.organization_id == organization_id)
    own_role = (members.c.organization_id == organization_id, members.c.user_id == caller.user_id)
    return private.join(members, members.c.resource_id == blobs.c.id).where(*own_role)


VISIBLE_ORDER = Order(columns=(blobs.c.organization_id, blobs.c.id))
"""The order of `visible_page`."""


async def visible_page(
    tx: Transaction, caller: Caller, type_: str, *, organization_id: str, after: str, limit: int
) -> list[Blob]:
    """The blobs of a type that a caller may read, those after `after`; of one organization, or of all if it is empty."""
    of_type = _SELECT.where(blobs.c.type == type_, _THERE)
    if organization_id:
        of_type = of_type.where(blobs.c.organization_id == organization_id)
    private = of_type.where(blobs.c.visibility == PRIVATE)
    # Said as the index says it, because with a parameter it would not be used.
    found = [of_type.where(_IS_PUBLIC)]
    if caller.administrator:
        found.append(private)
    elif caller.user_id is not None:
        for resource in (blobs.c.organization_id, blobs.c.id):
            own = private.join(members, members.c.resource_id == resource).where(members.c.user_id == caller.user_id)
            found.append(own)
    elif caller.organization_id is not None:
        own = private.where(blobs.c.organization_id == caller.organization_id)
        found.append(own.where(blobs.c.id == caller.blob_id) if caller.blob_id else own)
    rows = await tx.execute(union(VISIBLE_ORDER.apply(each, after, limit) for each in found))
    # A user may hold a role on a blob and another one on its organization.
    return VISIBLE_ORDER.merge({blob.id: blob for blob in _BLOB.all(rows)}.values(), limit)


_PIN = Prepared(share_rows(sa.select(blobs.c.id).where(_ID, _THERE)), Scalar(str))


async def pin(tx: Transaction, blob_id: str) -> bool:
    """Lock a blob against change and deletion until the transaction ends; False when it is gone. Others may pin it too."""
    return await tx.first(_PIN, blob=blob_id) is not None


_OF_ORGANIZATION = blobs.c.organization_id == sa.bindparam("organization")
_NEXT_TYPE = Prepared(
    sa.select(blobs.c.type)
    .where(_OF_ORGANIZATION, blobs.c.type > sa.bindparam("after"))
    .order_by(blobs.c.organization_id, blobs.c.type)
    .limit(1),
    Scalar(str),
)


async def types(tx: Transaction, organization_id: str) -> list[str]:
    """The types that an organization's blobs are of. Each costs one search of the index, however many blobs there are."""
    found: list[str] = []
    while (next_ := await tx.first(_NEXT_TYPE, organization=organization_id, after=found[-1] if found else "")) is not None:
        found.append(next_)
    return found


_SOME = Prepared(
    sa.select(blobs.c.id, blobs.c.type)
    .where(_OF_ORGANIZATION)
    .order_by(blobs.c.id)
    .limit(sa.bindparam("most", type_=sa.BigInteger))
    .with_for_update(),
    Pair(Scalar(str, "id"), Scalar(str, "type")),
)


async def some_of_deleted(tx: Transaction, organization_id: str, limit: int) -> list[tuple[str, str]]:
    """The ids and types of the first blobs whose organization is not there; their rows are locked in this order."""
    return await tx.all(_SOME, organization=organization_id, most=limit)


_TOTAL_BYTES = Prepared(sa.select(blobs.c.bytes).where(_ID), Scalar(int))


async def total_bytes(tx: Transaction, blob_id: str) -> int:
    """How many bytes of content a blob holds, each content counted once."""
    return await tx.first(_TOTAL_BYTES, blob=blob_id) or 0


async def update(tx: Transaction, blob_id: str, **values: Any) -> None:
    """Change some columns. Raises IntegrityError when the alias is taken."""
    await tx.execute(blobs.update().where(blobs.c.id == blob_id).values(values))


_TAKE_NUMBER = Prepared(
    blobs.update().where(_ID).values(last_sequence=blobs.c.last_sequence + 1).returning(blobs.c.last_sequence), Scalar(int)
)


async def take_number(tx: Transaction, blob_id: str) -> int:
    """Take the next number of a blob's events; its row stays locked until the commit."""
    return await tx.one(_TAKE_NUMBER, blob=blob_id)


_DELETE = Prepared(blobs.delete().where(is_one_of(blobs.c.id, "ids")))


async def delete(tx: Transaction, blob_ids: Sequence[str]) -> None:
    """Remove the rows of blobs, which are not there any more. What belongs to them is left, for a deletion."""
    await tx.run(_DELETE, ids=blob_ids)


async def all_types(tx: Transaction) -> list[str]:
    """The types that there are blobs of. It reads all blobs."""
    return [name for (name,) in await tx.execute(sa.select(blobs.c.type).distinct())]
