"""Deletions: the blobs and organizations that are gone and whose rows in other tables are still to be collected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import Prepared, is_one_of
from blobhub_server.db.records import Mapper
from blobhub_server.db.schema import Id, metadata

deletions = sa.Table(
    "deletions",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("type", sa.String(128), nullable=False),
)
"""`id` is the blob's or the organization's; `type` is the blob's, and empty for an organization."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """A row of the table."""

    id: str
    type: str


_DELETION = Mapper(Deletion, deletions)
_INSERT = Prepared(deletions.insert())


async def insert(tx: Transaction, new: Sequence[Deletion]) -> None:
    """Store deletions, in the transaction that removes the rows of what is deleted."""
    await tx.run_each(_INSERT, [_DELETION.row(item) for item in new])


_CLAIM = Prepared(
    _DELETION.select()
    .where(deletions.c.id > sa.bindparam("after"))
    .order_by(deletions.c.id)
    .limit(sa.bindparam("most", type_=sa.BigInteger))
    .with_for_update(skip_locked=True),
    _DELETION,
)


async def claim(tx: Transaction, *, after: str, limit: int) -> list[Deletion]:
    """The first deletions after an id. Until the transaction ends no other server works on them, which is why there is no
    lease: a server that dies lets go of them. Those that others work on are passed by.
    """
    return await tx.all(_CLAIM, after=after, most=limit)


_DELETE = Prepared(deletions.delete().where(is_one_of(deletions.c.id, "ids")))


async def delete(tx: Transaction, ids: Sequence[str]) -> None:
    """Remove deletions of which nothing is left."""
    await tx.run(_DELETE, ids=ids)
