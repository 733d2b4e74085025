"""Counting rows, and naming the first of them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction

MAX_NAMED = 100


async def count_and_name(tx: Transaction, id_: sa.Column[str], *where: Any) -> tuple[int, list[str]]:
    """How many rows there are, and the ids of the first hundred."""
    count = (await tx.execute(sa.select(sa.func.count(id_)).where(*where))).scalar_one()
    named = (await tx.execute(sa.select(id_).where(*where).order_by(id_).limit(MAX_NAMED))).scalars()
    return int(count), list(named)
