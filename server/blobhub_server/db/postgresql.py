"""PostgreSQL: a pool of connections, for readers and writers alike.

Importing this raises StartError where the driver, an extra, is not installed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from blobhub_server.background import uninterrupted
from blobhub_server.db.engine import CoreResult, Database, LongRead, Transaction, TransactionAborted
from blobhub_server.db.lane import LONG_READS
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.records import Row
from blobhub_server.db.trouble import StorageBusy
from blobhub_server.errors import StorageFull, StorageUnavailable
from blobhub_server.start import StartError
from blobhub_server.turnstile import Party

try:
    import asyncpg
except ImportError:
    raise StartError("PostgreSQL needs the extra: pip install 'blobhub-server[postgres]'") from None

log = structlog.get_logger()

POOL_SIZE = 10

CONNECT_SECONDS = 10.0
POOL_SECONDS = 30.0
"""How long whoever needs a connection waits for one of a pool whose connections are all in use."""
ROLLBACK_SECONDS = 5.0
"""A connection on which a rollback takes longer is dropped; the database then rolls back by itself."""

KEEPALIVES = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
"""For every connection: the database notices within a minute that a server's machine is gone, and frees its locks."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a connection may do and how long, so that a server which freezes does not hold the others."""

    idle_in_transaction_seconds: int
    lock_seconds: int
    statement_seconds: int
    read_only: bool = False

    def connect_args(self) -> dict[str, Any]:
        """The driver's arguments."""
        settings = {
            "default_transaction_read_only": "on" if self.read_only else "off",
            "idle_in_transaction_session_timeout": f"{self.idle_in_transaction_seconds}s",
            "lock_timeout": f"{self.lock_seconds}s",
            "statement_timeout": f"{self.statement_seconds}s",
        }
        # Where the database does not end a statement in time, the network or its machine is gone.
        return {"server_settings": KEEPALIVES | settings, "command_timeout": self.statement_seconds + CONNECT_SECONDS}


# A frozen server loses its transaction within the lease that it has by default, or, where the database does not see that
# it is idle, soon after: see `Ownership`. Whoever waits for its locks waits longer
# than that, and so gets them. The longest statements delete what belongs to a large blob.
POOL_BOUNDS = Bounds(idle_in_transaction_seconds=10, lock_seconds=30, statement_seconds=120)
# Long reads lock nothing. What takes longer than this is taking the database from others.
LONG_BOUNDS = Bounds(idle_in_transaction_seconds=10, lock_seconds=5, statement_seconds=120, read_only=True)
# Nothing on the reserved connection takes more than a moment, and leases have to be renewed in time.
RESERVED_BOUNDS = Bounds(idle_in_transaction_seconds=5, lock_seconds=5, statement_seconds=5)
# More than all statements of ours, so that a connection prepares each of them once. With the driver's default of 100 they
# would evict each other, and a statement that was evicted costs a further round trip.
STATEMENT_CACHE_SIZE = 512

DRIVER = "postgresql+asyncpg"
_GROUND_TROUBLE = (
    "08",  # the connection was lost
    "25006",  # read only: the database has become a replica
    "25P03",  # the transaction was idle for too long
    "3F000",  # with the next three: what was migrated at the start is gone, or is not for us, as while it is restored
    "42501",
    "42703",
    "42P01",
    "53",  # no disk, memory or connection is left
    "55P03",  # somebody held a lock for too long
    "57",  # the server is shut down or starts, or the statement was cancelled, for example after its timeout
    "58",  # the system below the database failed
    "XX",  # the database has met what it does not understand, such as a damaged page
)
"""SQLSTATEs, or how they begin (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""

_DISK_FULL = "53100"

# A table of its own takes room as other tables do, and needs no right on any of them.
_PROBE = "CREATE TEMP TABLE probe ON COMMIT DROP AS SELECT md5(n::text) FROM generate_series(1, 2000) AS n"

_names = sa.func.any(sa.bindparam("names", type_=ARRAY(sa.Text)))
_END_CONNECTIONS = Prepared(
    sa.select(sa.func.pg_terminate_backend(sa.column("pid")))
    .select_from(sa.table("pg_stat_activity"))
    .where(sa.column("application_name") == _names, sa.column("usename") == sa.func.current_user())
)

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

    async def execute(self, statement: sa.Executable, parameters: Any = None) -> CoreResult:
        try:
            return await self._connection.execute(statement, parameters)
        except sa.exc.DBAPIError as error:
            lost = error.connection_invalidated or self._driver.is_closed()
            if (trouble := _trouble(error.orig, lost=lost)) is not None:
                raise trouble from error
            raise
        except Exception as error:
            self._raise_if_lost(error)
            raise

    async def _fetch(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        with self._translate_errors(sql):
            found: Sequence[Row] = await self._driver.fetch(sql, *values)
            return found

    async def _fetch_each(self, sql: str, values: Sequence[Sequence[Any]], *, returning: bool) -> Sequence[Row]:
        with self._translate_errors(sql):
            run = self._driver.fetchmany if returning else self._driver.executemany
            return await run(sql, values) or ()

    async def begin(self) -> None:
        """Begin a transaction."""
        await self._command("BEGIN")

    async def commit(self) -> None:
        """Commit it, and run the hooks. Raises TransactionAborted."""
        # PostgreSQL answers ROLLBACK, and reports no error, where a statement has failed before.
        if await self._command("COMMIT") != "COMMIT":
            raise TransactionAborted
        self.run_hooks()

    async def rollback(self) -> None:
        """Roll it back. A connection on which that fails, because it is lost for example, is not used again."""
        try:
            async with asyncio.timeout(ROLLBACK_SECONDS):
                await self._command("ROLLBACK")
        except Exception as error:
            log.debug("rollback_failed", reason=type(error).__name__)
            self._driver.terminate()
            await self._connection.invalidate()

    @asynccontextmanager
    async def _savepoint(self) -> AsyncIterator[None]:
        await self._command("SAVEPOINT part")
        try:
            yield
        except BaseException:
            await self._command("ROLLBACK TO part")
            await self._command("RELEASE part")
            raise
        await self._command("RELEASE part")

    async def _command(self, sql: str) -> str:
        """Run a command of a transaction; return what the database says that it did."""
        with self._translate_errors(sql):
            done: str = await self._driver.execute(sql)
            return done

    @contextmanager
    def _translate_errors(self, sql: str) -> Iterator[None]:
        """Raise the driver's errors as Core would, without the parameter values that the driver's own errors hold."""
        try:
            yield
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            translated = _to_core_error(error, sql)
            if (trouble := _trouble(error, lost=self._driver.is_closed())) is not None:
                raise trouble from translated
            raise translated from None
        except Exception as error:
            self._raise_if_lost(error)
            raise

    def _raise_if_lost(self, error: Exception) -> None:
        """Raise StorageUnavailable in place of whatever a lost connection or a timeout has led to in the driver."""
        if isinstance(error, OSError):
            # It may still be busy with what took too long, so the pool must not hand it out again.
            self._driver.terminate()
            raise StorageUnavailable from error
        if self._driver.is_closed():
            raise StorageUnavailable from error


def _to_core_error(error: Any, sql: str) -> Exception:
    """A driver's error as Core would raise it."""
    refused = isinstance(error, asyncpg.IntegrityConstraintViolationError)
    translated = (_ERRORS.IntegrityError if refused else _ERRORS.Error)(str(error.args[0]), error)
    core: Exception = sa.exc.DBAPIError.instance(sql, None, translated, _ERRORS.Error, hide_parameters=True)
    return core


def _trouble(error: Any, *, lost: bool) -> StorageUnavailable | None:
    """What to raise for an error, of Core or of the driver, that is about the database's health; None for any other.

    `lost` says that the connection is.
    """
    state: str = getattr(error, "sqlstate", None) or ""
    if state == _DISK_FULL:
        return StorageFull()
    return StorageUnavailable() if lost or state.startswith(_GROUND_TROUBLE) else None


class PostgresqlLongRead(PostgresqlTransaction, LongRead):
    """A connection of the long lane."""


class PostgresqlDatabase(Database):
    """A PostgreSQL database, possibly shared with other servers."""

    exclusive = False

    def __init__(self, url: URL, application_name: str | None = None) -> None:
        super().__init__(url)
        # The driver begins transactions, so that statements of Core and of the driver share them.
        self._engine = make_engine(url, POOL_BOUNDS, application_name, isolation_level="AUTOCOMMIT")
        self._long_engine = make_engine(url, LONG_BOUNDS, pool_size=LONG_READS, max_overflow=0, isolation_level="AUTOCOMMIT")
        self._reserved_engine = make_engine(url, RESERVED_BOUNDS, pool_size=1, max_overflow=0, isolation_level="AUTOCOMMIT")

    async def close(self) -> None:
        await self._engine.dispose()
        await self._long_engine.dispose()
        await self._reserved_engine.dispose()

    def read(self) -> AbstractAsyncContextManager[Transaction]:
        return _connected(self._engine)

    @asynccontextmanager
    async def scan(self, party: Party, *, patient: bool = False) -> AsyncIterator[Transaction]:
        async with self._lane.turn(party, patient=patient), _connected(self._long_engine, PostgresqlLongRead) as tx:
            yield tx

    def write(self) -> AbstractAsyncContextManager[Transaction]:
        return _transaction(self._engine)

    async def probe(self) -> None:
        async with self.reserved() as tx:
            await tx.execute(sa.text(_PROBE))

    async def end_connections(self, application_names: Sequence[str]) -> None:
        async with self.reserved() as tx:
            await tx.run(_END_CONNECTIONS, names=application_names)

    def reserved(self) -> AbstractAsyncContextManager[Transaction]:
        return _transaction(self._reserved_engine)


@asynccontextmanager
async def _connected(
    engine: AsyncEngine, made: type[PostgresqlTransaction] = PostgresqlTransaction
) -> AsyncIterator[PostgresqlTransaction]:
    async with AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(engine.connect())
        except sa.exc.TimeoutError as error:
            raise StorageBusy from error
        except Exception as error:
            raise StorageUnavailable from error  # whatever the reason is: nothing has been asked of it yet
        yield made(connection)


@asynccontextmanager
async def _transaction(engine: AsyncEngine) -> AsyncIterator[Transaction]:
    async with _connected(engine) as tx:
        try:
            await tx.begin()
            yield tx
            await uninterrupted(_commit(tx))
        except BaseException:
            # Also after the commit: whether that has ended the transaction is not known when it failed.
            await uninterrupted(tx.rollback())
            raise


async def _commit(tx: PostgresqlTransaction) -> None:
    try:
        await tx.commit()
    except StorageUnavailable:
        tx.run_doubt_hooks()
        raise


async def connect(url: URL) -> Any:
    """A driver connection outside of the pool; the caller closes it.

    The URL means the same here as for the engine, TLS and socket folders included.
    """
    driven = url.set(drivername=DRIVER)
    _, options = driven.get_dialect()().create_connect_args(driven)
    return await asyncpg.connect(**options, server_settings=KEEPALIVES, timeout=CONNECT_SECONDS)


def make_engine(
    url: URL,
    bounds: Bounds | None = None,
    application_name: str | None = None,
    *,
    pool_size: int = POOL_SIZE,
    max_overflow: int = POOL_SIZE,
    **options: Any,
) -> AsyncEngine:
    """A pooled engine; without bounds, as migrations need it, its statements may take as long as they do.

    `application_name` is what the database knows its connections by.
    """
    connect_args = bounds.connect_args() if bounds else {"server_settings": KEEPALIVES}
    if application_name:
        connect_args["server_settings"] = connect_args["server_settings"] | {"application_name": application_name}
    return create_async_engine(
        url.set(drivername=DRIVER),
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_pre_ping=True,
        pool_timeout=POOL_SECONDS,
        connect_args=connect_args | {"timeout": CONNECT_SECONDS, "statement_cache_size": STATEMENT_CACHE_SIZE},
        hide_parameters=True,  # or errors and logs would hold what requests do
        **options,
    )
