"""Counting what hangs on something, and naming the first of it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from blobhub_server.blobtypes.values import Dependents
from blobhub_server.db.engine import Transaction

NAMED = 100


async def dependents(tx: Transaction, kind: str, id_: sa.Column[str], *where: Any) -> Dependents:
    """How many rows there are, and the ids of the first hundred."""
    count = (await tx.execute(sa.select(sa.func.count(id_)).where(*where))).scalar_one()
    named = (await tx.execute(sa.select(id_).where(*where).order_by(id_).limit(NAMED))).scalars()
    return Dependents(kind, int(count), list(named))
