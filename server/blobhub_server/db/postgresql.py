"""PostgreSQL: a pool of connections, for readers and writers alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction, create_async_engine

from blobhub_server.background import uninterrupted
from blobhub_server.db.engine import Database, Result, Transaction
from blobhub_server.start import StartError

POOL = 10
DRIVER = "postgresql+asyncpg"


class PostgresqlTransaction(Transaction):
    """A transaction on a PostgreSQL connection."""

    dialect = "postgresql"

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__()
        self._connection = connection

    async def execute(self, statement: sa.Executable, parameters: Any = None) -> Result:
        """See Transaction."""
        return await self._connection.execute(statement, parameters)

    def savepoint(self) -> AbstractAsyncContextManager[Any]:
        """See Transaction."""
        return self._connection.begin_nested()


class PostgresqlDatabase(Database):
    """A PostgreSQL database, possibly shared with other servers."""

    exclusive = False

    def __init__(self, url: URL) -> None:
        self.url = url
        self._writer = make_engine(url)
        self._reader = self._writer.execution_options(isolation_level="AUTOCOMMIT")
        self._reserve = make_engine(url, pool_size=1, max_overflow=0)

    async def close(self) -> None:
        """See Database."""
        await self._writer.dispose()
        await self._reserve.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """See Database."""
        async with self._reader.connect() as connection:
            yield PostgresqlTransaction(connection)

    def write(self) -> AbstractAsyncContextManager[Transaction]:
        """See Database."""
        return _transaction(self._writer)

    def reserved(self) -> AbstractAsyncContextManager[Transaction]:
        """See Database."""
        return _transaction(self._reserve)


@asynccontextmanager
async def _transaction(engine: AsyncEngine) -> AsyncIterator[Transaction]:
    async with engine.connect() as connection:
        begun = await connection.begin()
        tx = PostgresqlTransaction(connection)
        try:
            yield tx
        except BaseException:
            await uninterrupted(_rollback(begun))
            raise
        await uninterrupted(_commit(begun, tx))


async def _commit(begun: AsyncTransaction, tx: Transaction) -> None:
    await begun.commit()
    tx.committed()


async def _rollback(begun: AsyncTransaction) -> None:
    await begun.rollback()


async def connect(url: URL) -> Any:
    """A driver connection that belongs to no pool; whoever asks for it closes it.

    What the URL says means the same here as to the engine, TLS and socket folders included.
    """
    import asyncpg  # noqa: PLC0415  an extra, and slow to import

    driven = url.set(drivername=DRIVER)
    _, options = driven.get_dialect()().create_connect_args(driven)
    return await asyncpg.connect(**options)


def make_engine(url: URL, *, pool_size: int = POOL, max_overflow: int = POOL) -> AsyncEngine:
    """A pooled engine. Raises StartError where the driver is not installed."""
    try:
        return create_async_engine(
            url.set(drivername=DRIVER),
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_pre_ping=True,
            hide_parameters=True,  # or errors and logs would hold what requests do
        )
    except ImportError:
        raise StartError("PostgreSQL needs the extra: pip install 'blobhub-server[postgres]'") from None
