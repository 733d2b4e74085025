"""Reading a database that a server may have open, without locking or changing anything."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL

from blobhub_server.db.engine import Transaction
from blobhub_server.db.opening import TIMEOUT_SECONDS, parse_url, reaching
from blobhub_server.db.sqlite import SqliteTransaction


class NoDatabaseYet(Exception):
    """There is no SQLite file; the first start makes it."""


@asynccontextmanager
async def open_read_only(url: str) -> AsyncIterator[Transaction]:
    """A connection to read with, beside any server. Raises StartError, NoDatabaseYet."""
    parsed = parse_url(url)
    with reaching(parsed):
        async with _sqlite(parsed) if parsed.get_backend_name() == "sqlite" else _postgresql(parsed) as tx:
            yield tx


async def server_time(tx: Transaction) -> datetime | None:
    """The clock of the database's machine; None for SQLite, which is on this one."""
    if tx.dialect.name == "sqlite":
        return None
    time: datetime = (await tx.execute(sa.select(sa.func.clock_timestamp()))).scalar_one()
    return time


@asynccontextmanager
async def _sqlite(url: URL) -> AsyncIterator[Transaction]:
    engine = _read_only_engine(url.database or "")
    try:
        with engine.connect() as connection:
            yield SqliteTransaction(connection)
    finally:
        engine.dispose()


def _read_only_engine(file: str) -> sa.Engine:
    path = Path(file).absolute()
    if not path.exists():
        raise NoDatabaseYet
    return sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True))


@asynccontextmanager
async def _postgresql(url: URL) -> AsyncIterator[Transaction]:
    # An extra, and slow to import.
    from blobhub_server.db.postgresql import PostgresqlTransaction, make_engine  # noqa: PLC0415

    engine = make_engine(url).execution_options(isolation_level="AUTOCOMMIT", postgresql_readonly=True)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS), engine.connect() as connection:
            yield PostgresqlTransaction(connection)
    finally:
        await engine.dispose()
