"""Limits, where they are set."""

from __future__ import annotations

from collections import defaultdict

import sqlalchemy as sa

from blobhub_server.blobtypes.contract import Selected
from blobhub_server.db.engine import Transaction
from blobhub_server.db.schema import Id, metadata
from blobhub_server.platform.rules.limit import Setting

limits = sa.Table(
    "limits",
    metadata,
    sa.Column("scope_id", Id(), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)
"""`scope_id` is an organization or a blob."""

_SCOPES = limits.c.scope_id.in_([sa.bindparam("organization"), sa.bindparam("blob")])
_GET = sa.select(limits.c.scope_id, limits.c.value).where(_SCOPES, limits.c.name == sa.bindparam("limit"))
_ALL = sa.select(limits.c.name, limits.c.scope_id, limits.c.value).where(_SCOPES)


async def get(tx: Transaction, name: str, org_id: str, blob_id: str) -> Setting:
    """What is set for one limit on an organization and a blob of it; no `blob_id` for the organization alone."""
    rows = await tx.execute(_GET, {"organization": org_id, "blob": blob_id, "limit": name})
    values: dict[str, int] = {row.scope_id: row.value for row in rows}
    return Setting(values.get(org_id), values.get(blob_id))


async def everything(tx: Transaction, org_id: str, blob_id: str) -> dict[str, Setting]:
    """What is set on an organization and a blob of it, by name of the limit."""
    values: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for name, scope, value in await tx.execute(_ALL, {"organization": org_id, "blob": blob_id}):
        values[name][scope] = value
    return {name: Setting(by_scope.get(org_id), by_scope.get(blob_id)) for name, by_scope in values.items()}


async def put(tx: Transaction, scope_id: str, name: str, value: int) -> None:
    """Set a limit."""
    upsert = tx.upsert(limits, keys=(limits.c.scope_id, limits.c.name), changed=(limits.c.value,))
    await tx.execute(upsert, {"scope_id": scope_id, "name": name, "value": value})


async def delete(tx: Transaction, scope_id: str, name: str) -> None:
    """Take a setting back."""
    await tx.execute(limits.delete().where(limits.c.scope_id == scope_id, limits.c.name == name))


async def delete_all(tx: Transaction, scope_ids: Selected) -> None:
    """Take everything back that is set on organizations or blobs."""
    await tx.execute(limits.delete().where(limits.c.scope_id.in_(scope_ids)))
