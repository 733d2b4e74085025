"""Databases that cannot be used for a while: a disk that is full, a server that takes nobody in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from blobhub_server.db.engine import Database
from blobhub_server.db.sqlite import SqliteDatabase

CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"


@asynccontextmanager
async def away(db: Database) -> AsyncIterator[None]:
    """Nothing can be written, on PostgreSQL not read either, until the block is left."""
    if isinstance(db, SqliteDatabase):
        writer = db._writer.connection.driver_connection
        writer.execute("PRAGMA max_page_count = 1")  # It becomes as many as there are.
        yield
        writer.execute("PRAGMA max_page_count = 1000000")
        return
    beside = await connect_beside(db)
    try:
        await beside.execute(f"ALTER DATABASE {db.url.database} ALLOW_CONNECTIONS false")
        await beside.execute(CUT_OFF, db.url.database)
        yield
        await beside.execute(f"ALTER DATABASE {db.url.database} ALLOW_CONNECTIONS true")
    finally:
        await beside.close()


async def connect_beside(db: Database) -> asyncpg.Connection:
    """A connection to another database of the same PostgreSQL."""
    return await asyncpg.connect(db.url.set(database="postgres").render_as_string(hide_password=False))
