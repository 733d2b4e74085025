"""A table of numbered notes, for tests of the database that need rows of their own."""

from __future__ import annotations

import sqlalchemy as sa
from blobhub_server.db.engine import Database
from blobhub_server.db.schema import Time

# Not on the shared metadata: these are no tables of the product.
tables = sa.MetaData()
notes = sa.Table(
    "test_notes",
    tables,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", Time()),
)


async def numbers(db: Database) -> list[int]:
    async with db.read() as tx:
        return list((await tx.execute(sa.select(notes.c.id).order_by(notes.c.id))).scalars())


async def note(tx, *ids: int) -> None:
    await tx.execute(notes.insert(), [{"id": id_} for id_ in ids])
