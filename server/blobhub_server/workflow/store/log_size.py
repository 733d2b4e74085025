"""How large the logs of an organization are: one row for each, so that nothing is summed up to know it."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import Prepared, Statement
from blobhub_server.db.records import Scalar
from blobhub_server.db.schema import Id, metadata

log_sizes = sa.Table(
    "log_sizes",
    metadata,
    sa.Column("organization_id", Id(), primary_key=True),
    sa.Column("log_bytes", sa.BigInteger, nullable=False),
)
"""The sum of `counted_log_bytes` of an organization's sessions. There is no row where that is 0."""

_WHOSE = log_sizes.c.organization_id == sa.bindparam("organization")
_GET = Prepared(sa.select(log_sizes.c.log_bytes).where(_WHOSE), Scalar(int))


async def get(tx: Transaction, organization_id: str) -> int:
    """How many bytes of an organization's logs are counted."""
    return await tx.first(_GET, organization=organization_id) or 0


def _adding(insert: sqlite.Insert | postgresql.Insert) -> Statement:
    grown = log_sizes.c.log_bytes + insert.excluded.log_bytes
    made = insert.on_conflict_do_update(index_elements=[log_sizes.c.organization_id], set_={"log_bytes": grown})
    return made.returning(log_sizes.c.log_bytes)


_ADD = Prepared(
    {"sqlite": _adding(sqlite.insert(log_sizes)), "postgresql": _adding(postgresql.insert(log_sizes))}, Scalar(int)
)


async def add(tx: Transaction, grown: Mapping[str, int]) -> dict[str, int]:
    """Add bytes to what is counted of organizations, by their ids; return how many are counted now.

    The rows stay locked until the commit. They are locked in the order of the ids, as wherever several are.
    """
    return {id_: await tx.one(_ADD, organization_id=id_, log_bytes=grown[id_]) for id_ in sorted(grown)}


_GIVE_BACK = Prepared(
    log_sizes.update().where(_WHOSE).values(log_bytes=log_sizes.c.log_bytes - sa.bindparam("freed", type_=sa.BigInteger))
)
_DELETE_EMPTY = Prepared(log_sizes.delete().where(_WHOSE, log_sizes.c.log_bytes <= 0))


async def give_back(tx: Transaction, freed: Mapping[str, int]) -> None:
    """Take bytes of logs that are removed from what is counted of organizations, by their ids."""
    for organization_id in sorted(freed):
        await tx.run(_GIVE_BACK, organization=organization_id, freed=freed[organization_id])
        await tx.run(_DELETE_EMPTY, organization=organization_id)
