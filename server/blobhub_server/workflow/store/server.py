"""Servers, each alive until its lease runs out. Leases go by the database's clock."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.now import now
from blobhub_server.db.schema import Id, IdQuery, Time, metadata

servers = sa.Table(
    "servers",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("lease_until", Time(), nullable=False),
)


def select_living() -> IdQuery:
    """The servers whose leases have not run out."""
    return sa.select(servers.c.id).where(servers.c.lease_until > now())


def has_expired(since: timedelta) -> sa.ColumnElement[bool]:
    """The condition that a server's lease ran out so long ago, or longer."""
    return sa.type_coerce(servers.c.lease_until, sa.BigInteger) <= _us_from_now(-since)


async def renew(tx: Transaction, server_id: str, lease: timedelta) -> None:
    """Renew a server's lease, from now on."""
    until = _us_from_now(lease)
    renewed = servers.update().where(servers.c.id == server_id).values(lease_until=until).returning(servers.c.id)
    if (await tx.execute(renewed)).first() is None:
        await tx.execute(servers.insert().values(id=server_id, lease_until=until))


def _us_from_now(span: timedelta) -> sa.ColumnElement[int]:
    """The time so long after now, in microseconds as `Time` keeps it."""
    return sa.type_coerce(now(), sa.BigInteger) + sa.literal(span // timedelta(microseconds=1), sa.BigInteger)


async def list_expired(tx: Transaction) -> set[str]:
    """The servers whose leases have run out, by id."""
    return set((await tx.execute(sa.select(servers.c.id).where(has_expired(timedelta())))).scalars())


async def delete(tx: Transaction, server_id: str) -> None:
    """End a server's lease."""
    await tx.execute(servers.delete().where(servers.c.id == server_id))


async def delete_all(tx: Transaction) -> None:
    """End all leases. Only for a database that no other server can have open."""
    await tx.execute(servers.delete())
