"""Limit settings: where they are set, and by which rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.parts import delete_some
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.records import Mapper
from blobhub_server.db.schema import Choice, Id, metadata
from blobhub_server.platform.rules.limit import BLOB, ORGANIZATION, LimitSetting, Rank

limits = sa.Table(
    "limits",
    metadata,
    sa.Column("parent_id", Id(), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("rank", Choice(Rank, sa.SmallInteger()), primary_key=True, autoincrement=False),
    sa.Column("value", sa.BigInteger, nullable=False),
)
"""`parent_id` is an organization or a blob. Each rank has at most one value there."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """A row of the table."""

    parent_id: str
    name: str
    rank: Rank
    value: int

    def setting(self, blob_id: str) -> LimitSetting:
        return LimitSetting(source=BLOB if self.parent_id == blob_id else ORGANIZATION, rank=self.rank, value=self.value)


_LIMIT = Mapper(_Limit, limits)
_PARENTS = limits.c.parent_id.in_([sa.bindparam("organization"), sa.bindparam("blob")])
_ALL = Prepared(_LIMIT.select().where(_PARENTS), _LIMIT)
_GET = Prepared(_LIMIT.select().where(_PARENTS, limits.c.name == sa.bindparam("limit")), _LIMIT)


async def get(tx: Transaction, name: str, organization_id: str, blob_id: str) -> list[LimitSetting]:
    """The settings of one limit on an organization and on a blob of it; an empty `blob_id` is for the organization alone."""
    return [found.setting(blob_id) for found in await tx.all(_GET, organization=organization_id, blob=blob_id, limit=name)]


async def get_all(tx: Transaction, organization_id: str, blob_id: str) -> dict[str, list[LimitSetting]]:
    """The settings on an organization and on a blob of it, by the name of the limit."""
    settings: defaultdict[str, list[LimitSetting]] = defaultdict(list)
    for found in await tx.all(_ALL, organization=organization_id, blob=blob_id):
        settings[found.name].append(found.setting(blob_id))
    return settings


_PUT = Prepared(limits.insert())


async def put(tx: Transaction, parent_id: str, name: str, rank: Rank, value: int) -> None:
    """Set a limit. The caller has deleted what the rank had set before."""
    await tx.run(_PUT, **_LIMIT.row(_Limit(parent_id=parent_id, name=name, rank=rank, value=value)))


_DELETE = Prepared(
    limits.delete().where(
        limits.c.parent_id == sa.bindparam("parent"),
        limits.c.name == sa.bindparam("limit"),
        limits.c.rank <= sa.bindparam("highest"),
    )
)


async def delete(tx: Transaction, parent_id: str, name: str, rank: Rank) -> None:
    """Delete what a rank and lower ranks have set."""
    await tx.run(_DELETE, parent=parent_id, limit=name, highest=rank)


async def collect(tx: Transaction, parent_ids: Sequence[str], rows: int) -> int:
    """Remove so many settings on deleted organizations or blobs at most; return how many were removed."""
    return await delete_some(tx, limits, limits.c.parent_id.in_(parent_ids), rows)
