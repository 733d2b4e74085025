"""A table of numbered notes, for tests of the database that need rows of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import sqlalchemy as sa
from blobhub_server.db.engine import Database
from blobhub_server.db.opening import open_database
from blobhub_server.db.schema import Time

# Not on the shared metadata: these are no tables of the product.
tables = sa.MetaData()
notes = sa.Table(
    "test_notes",
    tables,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", Time()),
)


@asynccontextmanager
async def database_of_notes(url: str) -> AsyncIterator[Database]:
    """An open database that has the table."""
    opened = await open_database(url)
    async with opened.write() as tx:
        await tx.execute(sa.schema.CreateTable(notes))
    yield opened
    await opened.close()


async def numbers(db: Database) -> list[int]:
    async with db.read() as tx:
        return list((await tx.execute(sa.select(notes.c.id).order_by(notes.c.id))).scalars())


async def note(tx, *ids: int) -> None:
    await tx.execute(notes.insert(), [{"id": id_} for id_ in ids])
