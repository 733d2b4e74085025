"""Much work in parts: no statement is long, and others have the event loop in between.

What is done part by part in one transaction nobody else sees anything of before the commit, however many parts it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import lock_rows

PART = 500
"""How many rows a statement finds or removes at most."""

_PIECE_ROWS = 10
"""How many rows that may be large a statement removes at most."""
_ROW_BYTES = 16 << 10
"""A large row counts as one for each so many bytes, or a transaction would remove hundreds of mebibytes."""

Remove = Callable[[int], Awaitable[int]]
"""Removes so many rows at most; returns how many it has removed. Fewer than it may remove mean that none are left."""


async def delete_some(
    tx: Transaction, table: sa.Table, where: sa.ColumnElement[bool], rows: int, *, in_order: bool = False
) -> int:
    """Remove so many rows of a table, for which a condition holds, at most; return how many were removed.

    With `in_order` they are locked in the order of their keys: for tables of which others lock several rows, too.
    """
    key = [*table.primary_key.columns]
    part = sa.select(*key).where(where).limit(rows)
    if in_order:
        part = lock_rows(part.order_by(*key))
    # PostgreSQL waits for whoever changes a row that was found, and then looks at the row anew, but not at what was found.
    statement = table.delete().where(sa.tuple_(*key).in_(part) if len(key) > 1 else key[0].in_(part), where)
    return (await tx.execute_beside(statement)).rowcount


async def delete_large(
    tx: Transaction, table: sa.Table, where: sa.ColumnElement[bool], rows: int, size: sa.ColumnElement[int]
) -> int:
    """Remove so many rows that may have mebibytes, about, and fewer of large ones; return how many they count for.

    That is fewer than `rows` only if none are left. `size` is a row's length. To remove one of 1.5 MiB takes SQLite 10 ms.
    """
    key, removed = [*table.primary_key.columns], 0
    while removed < rows:
        piece = sa.select(*key).where(where).limit(min(_PIECE_ROWS, rows - removed))
        chosen = sa.tuple_(*key).in_(piece) if len(key) > 1 else key[0].in_(piece)
        found = (await tx.execute_beside(table.delete().where(chosen, where).returning(size))).scalars().all()
        if not found:
            break
        removed += sum(1 + length // _ROW_BYTES for length in found)
        await asyncio.sleep(0)
    return removed


async def delete_in_parts(tx: Transaction, table: sa.Table, where: sa.ColumnElement[bool]) -> None:
    """Remove all rows of a table for which a condition holds, in one transaction."""
    removed = PART
    while removed == PART:
        removed = await delete_some(tx, table, where, PART)
        await asyncio.sleep(0)


async def remove_in_order(steps: Iterable[Remove], rows: int) -> int:
    """Take one step after the other, until so many rows are removed; return how many are.

    A step is taken once the one before has left nothing: rows go before those that they refer to.
    """
    removed = 0
    for step in steps:
        removed += await step(rows - removed)
        await asyncio.sleep(0)
        if removed >= rows:
            break
    return removed
