"""PostgreSQL: a pool of connections, for readers and writers alike.

Importing this raises StartError where the driver, an extra, is not installed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from blobhub_server.background import uninterrupted
from blobhub_server.db.engine import CoreResult, Database, Transaction
from blobhub_server.db.records import Row
from blobhub_server.start import StartError

try:
    import asyncpg
except ImportError:
    raise StartError("PostgreSQL needs the extra: pip install 'blobhub-server[postgres]'") from None

log = structlog.get_logger()

POOL_SIZE = 10

# More than all statements of ours, so that a connection prepares each of them once. With the driver's default of 100 they
# would evict each other, and a statement that was evicted costs a further round trip.
STATEMENT_CACHE_SIZE = 512

DRIVER = "postgresql+asyncpg"
_ERRORS: Any = PGDialect_asyncpg.import_dbapi()  # type: ignore[no-untyped-call]
DIALECT: sa.Dialect = PGDialect_asyncpg(dbapi=_ERRORS)  # type: ignore[no-untyped-call]


class PostgresqlTransaction(Transaction):
    """A transaction on a PostgreSQL connection."""

    dialect = DIALECT

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__()
        self._connection = connection
        assert connection.sync_connection is not None, "the connection has been entered"
        self._driver: Any = connection.sync_connection.connection.driver_connection
        self._transaction: Any = None

    async def execute(self, statement: sa.Executable, parameters: Any = None) -> CoreResult:
        return await self._connection.execute(statement, parameters)

    async def _fetch(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        with _translate_errors(sql):
            found: Sequence[Row] = await self._driver.fetch(sql, *values)
            return found

    async def _fetch_each(self, sql: str, values: Sequence[Sequence[Any]], *, returning: bool) -> Sequence[Row]:
        with _translate_errors(sql):
            run = self._driver.fetchmany if returning else self._driver.executemany
            return await run(sql, values) or ()

    async def begin(self) -> None:
        """Begin a transaction."""
        self._transaction = self._driver.transaction()
        with _translate_errors("BEGIN"):
            await self._transaction.start()

    async def commit(self) -> None:
        """Commit it, and run the hooks."""
        with _translate_errors("COMMIT"):
            await self._transaction.commit()
        self.run_hooks()

    async def rollback(self) -> None:
        """Roll it back. A connection on which that fails, because it is lost for example, is not used again."""
        try:
            await self._transaction.rollback()
        except Exception as error:
            log.warning("rollback_failed", reason=type(error).__name__)
            self._driver.terminate()
            await self._connection.invalidate()

    @asynccontextmanager
    async def _savepoint(self) -> AsyncIterator[None]:
        with _translate_errors("SAVEPOINT"):
            async with self._driver.transaction():
                yield


@contextmanager
def _translate_errors(sql: str) -> Iterator[None]:
    """Raise the driver's errors as Core would, without the parameter values that the driver's own errors hold."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        refused = isinstance(error, asyncpg.IntegrityConstraintViolationError)
        translated = (_ERRORS.IntegrityError if refused else _ERRORS.Error)(str(error.args[0]), error)
        raise sa.exc.DBAPIError.instance(sql, None, translated, _ERRORS.Error, hide_parameters=True) from None


class PostgresqlDatabase(Database):
    """A PostgreSQL database, possibly shared with other servers."""

    exclusive = False

    def __init__(self, url: URL) -> None:
        self.url = url
        # The driver begins transactions, so that statements of Core and of the driver share them.
        self._engine = make_engine(url, isolation_level="AUTOCOMMIT")
        self._reserved_engine = make_engine(url, pool_size=1, max_overflow=0, isolation_level="AUTOCOMMIT")

    async def close(self) -> None:
        await self._engine.dispose()
        await self._reserved_engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        async with self._engine.connect() as connection:
            yield PostgresqlTransaction(connection)

    def write(self) -> AbstractAsyncContextManager[Transaction]:
        return _transaction(self._engine)

    def reserved(self) -> AbstractAsyncContextManager[Transaction]:
        return _transaction(self._reserved_engine)


@asynccontextmanager
async def _transaction(engine: AsyncEngine) -> AsyncIterator[Transaction]:
    async with engine.connect() as connection:
        tx = PostgresqlTransaction(connection)
        try:
            await tx.begin()
            yield tx
        except BaseException:
            await uninterrupted(tx.rollback())
            raise
        await uninterrupted(tx.commit())


async def connect(url: URL) -> Any:
    """A driver connection outside of the pool; the caller closes it.

    The URL means the same here as for the engine, TLS and socket folders included.
    """
    driven = url.set(drivername=DRIVER)
    _, options = driven.get_dialect()().create_connect_args(driven)
    return await asyncpg.connect(**options)


def make_engine(url: URL, *, pool_size: int = POOL_SIZE, max_overflow: int = POOL_SIZE, **options: Any) -> AsyncEngine:
    """A pooled engine."""
    return create_async_engine(
        url.set(drivername=DRIVER),
        connect_args={"statement_cache_size": STATEMENT_CACHE_SIZE},
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_pre_ping=True,
        hide_parameters=True,  # or errors and logs would hold what requests do
        **options,
    )
