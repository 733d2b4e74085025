"""Much work in one transaction, part by part: no statement is long, and others have the event loop in between.

Nobody else sees anything of it before the commit, however many parts it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.schema import IdQuery

PART = 500
"""How many rows a statement finds or removes at most."""


async def ids_in_parts(tx: Transaction, query: IdQuery) -> AsyncIterator[list[str]]:
    """The ids that a query of one column finds, in their order. Where it locks the rows, they are locked in that order."""
    (column,) = query.selected_columns
    after = ""
    while True:
        part = list((await tx.execute(query.where(column > after).order_by(column).limit(PART))).scalars())
        if part:
            yield part
            after = part[-1]
        if len(part) < PART:
            return
        await asyncio.sleep(0)


async def delete_in_parts(tx: Transaction, table: sa.Table, where: sa.ColumnElement[bool]) -> None:
    """Remove all rows of a table for which a condition holds."""
    key = [*table.primary_key.columns]
    part = sa.select(*key).where(where).limit(PART)
    statement = table.delete().where(sa.tuple_(*key).in_(part) if len(key) > 1 else key[0].in_(part))
    removed = PART
    while removed == PART:
        removed = (await tx.execute(statement)).rowcount
        await asyncio.sleep(0)
