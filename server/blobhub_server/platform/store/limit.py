"""Limits, where they are set, and by whom."""

from __future__ import annotations

from collections import defaultdict

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.schema import Id, Selected, metadata
from blobhub_server.platform.rules.limit import BLOB, ORGANIZATION, Rank, Setting

limits = sa.Table(
    "limits",
    metadata,
    sa.Column("scope_id", Id(), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("rank", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("value", sa.BigInteger, nullable=False),
)
"""`scope_id` is an organization or a blob; of each rank there is one value."""

_SCOPES = limits.c.scope_id.in_([sa.bindparam("organization"), sa.bindparam("blob")])
_ALL = sa.select(limits.c.name, limits.c.scope_id, limits.c.rank, limits.c.value).where(_SCOPES)
_GET = _ALL.where(limits.c.name == sa.bindparam("limit"))


async def get(tx: Transaction, name: str, org_id: str, blob_id: str) -> list[Setting]:
    """What is set for one limit on an organization and a blob of it; no `blob_id` for the organization alone."""
    rows = await tx.execute(_GET, {"organization": org_id, "blob": blob_id, "limit": name})
    return [_setting(scope_id, blob_id, rank, value) for _, scope_id, rank, value in rows]


async def everything(tx: Transaction, org_id: str, blob_id: str) -> dict[str, list[Setting]]:
    """What is set on an organization and a blob of it, by name of the limit; an empty list where nothing is."""
    found: defaultdict[str, list[Setting]] = defaultdict(list)
    for name, scope_id, rank, value in await tx.execute(_ALL, {"organization": org_id, "blob": blob_id}):
        found[name].append(_setting(scope_id, blob_id, rank, value))
    return found


def _setting(scope_id: str, blob_id: str, rank: int, value: int) -> Setting:
    return Setting(BLOB if scope_id == blob_id else ORGANIZATION, Rank(rank), value)


async def put(tx: Transaction, scope_id: str, name: str, rank: Rank, value: int) -> None:
    """Set a limit. The caller has taken back what the rank had set."""
    await tx.execute(limits.insert(), {"scope_id": scope_id, "name": name, "rank": int(rank), "value": value})


async def delete(tx: Transaction, scope_id: str, name: str, rank: Rank) -> None:
    """Take back what a rank and those below it have set."""
    of_limit = (limits.c.scope_id == scope_id, limits.c.name == name)
    await tx.execute(limits.delete().where(*of_limit, limits.c.rank <= int(rank)))


async def delete_all(tx: Transaction, scope_ids: Selected) -> None:
    """Take everything back that is set on organizations or blobs."""
    await tx.execute(limits.delete().where(limits.c.scope_id.in_(scope_ids)))
