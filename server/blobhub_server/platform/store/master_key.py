"""The master key that bodies are sealed under: one row, so that all servers of a database use the same."""

from __future__ import annotations

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import Prepared, upsert
from blobhub_server.db.schema import metadata

master_keys = sa.Table(
    "master_keys",
    metadata,
    sa.Column("role", sa.String(16), primary_key=True),
    sa.Column("key_id", sa.String(16), nullable=False),
)

_CURRENT = "current"
_SELECT = sa.select(master_keys.c.key_id).where(master_keys.c.role == _CURRENT)
_KEEP = Prepared(upsert(master_keys, keys=[master_keys.c.role], changed=[master_keys.c.role]))


async def register(tx: Transaction, key_id: str) -> str:
    """The current key's id, which is `key_id` on a database that has none yet; locked until the transaction ends."""
    await tx.run(_KEEP, role=_CURRENT, key_id=key_id)
    return str((await tx.execute(_SELECT.with_for_update())).scalar_one())


async def current(tx: Transaction) -> str:
    """The current key's id. It cannot change until the transaction ends."""
    return str((await tx.execute(_SELECT.with_for_update(read=True))).scalar_one())


async def find(tx: Transaction) -> str | None:
    """The current key's id, without locking it; None when there is none yet."""
    found: str | None = (await tx.execute(_SELECT)).scalar()
    return found


async def change(tx: Transaction, key_id: str) -> None:
    """Make another key the current one. The caller has locked the row."""
    await tx.execute(master_keys.update().where(master_keys.c.role == _CURRENT).values(key_id=key_id))
