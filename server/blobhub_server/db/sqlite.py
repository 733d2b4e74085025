"""SQLite: one writer, a queue in front of it, and readers beside it.

There are two lanes. Short statements run on the event loop: in WAL mode they touch memory and take microseconds; handing
each to a thread and back costs ten times that. Only the commit waits for the disk, so only the commit runs in a thread: one
hop a transaction. Reads that grow with the data (`scan`) run in threads, on connections that only read.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from blobhub_server.background import Turns, uninterrupted
from blobhub_server.db.engine import CoreResult, Database, LongRead, Transaction, TransactionAborted
from blobhub_server.db.lane import LONG_READS
from blobhub_server.db.pieces import LARGE_BYTES, pieces, size_of
from blobhub_server.db.records import Row
from blobhub_server.db.sqlite_error import is_busy, raise_translated
from blobhub_server.db.sqlite_file import FileMoved, SqliteFile
from blobhub_server.db.trouble import retry_seconds
from blobhub_server.errors import Overloaded, StorageUnavailable
from blobhub_server.scarcity import is_scarcity
from blobhub_server.turnstile import Party

Value = TypeVar("Value")

DIALECT: sa.Dialect = sqlite.dialect(dbapi=sqlite3)

# SQLite itself waits for no lock, because that would hold the event loop; `_begin` waits for the write lock from the loop.
_PRAGMAS = (
    *("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=0", "cache_size=-16384"),
    f"journal_size_limit={64 << 20}",  # what the log is cut down to after it was longer
)

BUSY_SECONDS = 5.0
"""How long a statement waits for a lock that another process holds on the file."""

INTERRUPT_SECONDS = 0.05
"""How long a statement that was interrupted may take to end, before it is interrupted again."""

_PROBE = (
    "CREATE TABLE probe (bytes BLOB)",
    "INSERT INTO probe VALUES (zeroblob(65536))",
    "DROP TABLE probe",
)
"""Takes pages from the file and gives them back. Committing it writes to the log even so."""


class SqliteTransaction(Transaction):
    """A transaction on a SQLite connection."""

    dialect = DIALECT

    def __init__(self, connection: sa.Connection, thread: Executor | None = None) -> None:
        """`thread` is where commits and long statements are run."""
        super().__init__()
        self._connection = connection
        self._thread = thread
        self._driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]  # any driver's

    async def execute(self, statement: sa.Executable, parameters: Any = None) -> CoreResult:
        try:
            return self._connection.execute(statement, parameters)
        except sa.exc.DBAPIError as error:
            raise_translated(error)

    async def execute_beside(self, statement: sa.Executable) -> CoreResult:
        try:
            return await self._beside(partial(self._connection.execute, statement))
        except sa.exc.DBAPIError as error:
            raise_translated(error)

    async def _beside(self, work: Callable[[], Value]) -> Value:
        """What `work` returns, done in the thread. A rollback must not come in between, so a cancellation waits."""
        return await uninterrupted(asyncio.get_running_loop().run_in_executor(self._thread, work))

    def _is_long(self, values: Sequence[Any]) -> bool:
        """Whether parameters are so large that binding them and finding pages for them would hold the event loop.

        To store a value of a mebibyte was seen to take 5 to 30 ms.
        """
        return self._thread is not None and size_of(values) > LARGE_BYTES

    async def _fetch(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        try:
            if self._is_long(values):
                return await self._beside(lambda: self._driver.execute(sql, values).fetchall())
            return self._driver.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise_translated(error, sql)

    async def _fetch_each(self, sql: str, values: Sequence[Sequence[Any]], *, returning: bool) -> Sequence[Row]:
        # In turns: the lines of one batch of the journal are 600 rows with their indexes, which took up to 60 ms in one go.
        found, turns = list[Row](), Turns()
        for piece in pieces(values):
            await turns.pause()
            found += await self._fetch_piece(sql, piece, returning=returning)
        return found

    async def _fetch_piece(self, sql: str, values: Sequence[Sequence[Any]], *, returning: bool) -> Sequence[Row]:
        run = partial(self._run_each, sql, values, returning=returning)
        try:
            # A large row is a piece by itself: a thread waits for the interpreter's lock anew with each row.
            return await self._beside(run) if self._is_long(values[0]) else run()
        except sqlite3.Error as error:
            raise_translated(error, sql)

    def _run_each(self, sql: str, values: Sequence[Sequence[Any]], *, returning: bool) -> Sequence[Row]:
        if returning:
            return [row for each in values for row in self._driver.execute(sql, each).fetchall()]
        return self._driver.executemany(sql, values).fetchall()

    async def begin(self) -> None:
        """Begin a transaction with the write lock, so that no later statement fails because another connection writes."""
        if self._driver.in_transaction:  # The last one could not be rolled back.
            await self._fetch("ROLLBACK", ())
        await self._fetch("BEGIN IMMEDIATE", ())

    def commit(self) -> None:
        """Commit it. This waits for the disk. Raises TransactionAborted."""
        if not self._driver.in_transaction:
            raise TransactionAborted
        try:
            self._driver.commit()
        except sqlite3.Error as error:
            raise_translated(error, "COMMIT")

    def rollback(self) -> None:
        """Roll back what is not committed. Where that fails, the next transaction does it before it begins."""
        with suppress(sqlite3.Error):
            self._driver.rollback()

    @asynccontextmanager
    async def _savepoint(self) -> AsyncIterator[None]:
        await self._fetch("SAVEPOINT part", ())
        try:
            yield
        except BaseException:
            if self._driver.in_transaction:  # A full disk rolls back the whole transaction.
                await self._fetch("ROLLBACK TO part", ())
                await self._fetch("RELEASE part", ())
            raise
        await self._fetch("RELEASE part", ())


class SqliteReader(SqliteTransaction):
    """The connection of all short reads. It waits for a lock of another process without holding the event loop."""

    async def execute(self, statement: sa.Executable, parameters: Any = None) -> CoreResult:
        return await _when_free(partial(super().execute, statement, parameters))

    async def _fetch(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        try:
            return await super()._fetch(sql, values)
        except StorageUnavailable:  # Every read comes here, so what is seldom needed is made only then.
            return await _when_free(partial(super()._fetch, sql, values))


class SqliteLongRead(LongRead):
    """A connection whose statements run in a thread."""

    dialect = DIALECT

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__()
        self._connection = connection
        assert connection.sync_connection is not None, "the connection has been entered"
        self._driver: aiosqlite.Connection = connection.sync_connection.connection.driver_connection  # type: ignore[assignment]

    async def execute(self, statement: sa.Executable, parameters: Any = None) -> CoreResult:
        try:
            return await self._interruptible(self._connection.execute(statement, parameters))
        except sa.exc.DBAPIError as error:
            raise_translated(error)

    async def _fetch(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        try:
            return [*await self._interruptible(_all_rows(self._driver, sql, values))]
        except sqlite3.Error as error:
            raise_translated(error, sql)

    async def _interruptible(self, statement: Coroutine[Any, Any, Value]) -> Value:
        """What a statement returns. When its caller is cancelled it is ended first, or its thread would go on for nobody."""
        running = asyncio.create_task(statement)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            while not running.done():  # It may have to be interrupted again, when its thread had not begun with it.
                await self._driver.interrupt()
                await asyncio.wait({running}, timeout=INTERRUPT_SECONDS)
            if not running.cancelled():
                running.exception()  # or asyncio would log it
            raise

    async def _fetch_each(self, sql: str, values: Sequence[Sequence[Any]], *, returning: bool) -> Sequence[Row]:
        return [row for each in values for row in await self._fetch(sql, each)]

    def _savepoint(self) -> AbstractAsyncContextManager[Any]:
        return nullcontext()  # There is nothing to undo.


async def _all_rows(driver: aiosqlite.Connection, sql: str, values: Sequence[Any]) -> Iterable[Row]:
    """The rows of a statement, in one hop to the driver's thread and back."""
    return await driver.execute_fetchall(sql, values)


class SqliteDatabase(Database):
    """A SQLite file, held by this server alone."""

    exclusive = True

    def __init__(self, url: URL) -> None:
        super().__init__(url)
        self._file = SqliteFile(Path(url.database or ""))
        self._writing = _engine(url, _PRAGMAS)
        self._reading = _engine(url, ("query_only=ON", "busy_timeout=0"))
        try:
            self._writer = self._writing.connect()
            self._reader = self._reading.connect()
        except BaseException:
            self._file.release()
            raise
        self._commits = ThreadPoolExecutor(1, "sqlite-commit")
        self._read = nullcontext(SqliteReader(self._reader))  # It has no state, so all readers share it.
        self._scanning = _long_engine(Path(url.database or ""))
        self._write_lock = asyncio.Lock()

    async def close(self) -> None:
        await self._scanning.dispose()
        async with self._write_lock:
            await self._save_log()
            self._commits.shutdown()
        self._file.closing()
        for connection in (self._reader, self._writer):
            connection.close()
        for engine in (self._reading, self._writing):
            engine.dispose()
        self._file.closed()
        self._file.release()  # Last, so that no other server opens the database before this one is done.

    def read(self) -> AbstractAsyncContextManager[Transaction]:
        """One connection serves all readers, because no reader holds anything across an await.

        So read a result whole (`first`, `scalars().all()`, a comprehension) before the next await: a result that is
        half read keeps SQLite at its snapshot, for every reader.
        """
        return self._read

    @asynccontextmanager
    async def scan(self, party: Party, *, patient: bool = False) -> AsyncIterator[Transaction]:
        async with self._lane.turn(party, patient=patient):
            connection = self._scanning.connect()
            try:
                await _start(connection, patient=patient)
                yield SqliteLongRead(connection)
            finally:
                if connection.sync_connection is not None:
                    await connection.close()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        until = asyncio.get_running_loop().time() + BUSY_SECONDS
        async with self._write_lock:  # An asyncio lock is fair: writers take turns in the order they came.
            # Under the lock, or another writer, who found the log gone, would take away the mark that this one has made.
            await self._require_file()
            tx = SqliteTransaction(self._writer, self._commits)
            await _when_free(tx.begin, until)
            try:
                self._file.begun()
                yield tx
                await uninterrupted(self._commit(tx))
            except BaseException:
                tx.rollback()
                raise

    async def probe(self) -> None:
        async with self.write() as tx:
            for statement in _PROBE:
                await tx.execute(sa.text(statement))

    async def end_connections(self, application_names: Sequence[str]) -> None:
        """There are no other servers."""

    def reserved(self) -> AbstractAsyncContextManager[Transaction]:
        return self.write()  # There is one writer, so a connection of its own would gain nothing.

    async def _require_file(self) -> None:
        """Raise StorageUnavailable where a change would go into a file that nobody finds again."""
        if not self._file.is_there():
            await self._save_log()
            raise StorageUnavailable from FileMoved(f"{self._file.path} or its log was moved or removed; restart the server")

    async def _save_log(self) -> None:
        """Bring what is in the log into the database, so that nothing is lost with a log that is gone.

        The caller has the write lock.
        """
        tx = SqliteTransaction(self._writer, self._commits)
        with suppress(sa.exc.DBAPIError, StorageUnavailable):
            _, frames, saved = (await tx.execute_beside(sa.text("PRAGMA wal_checkpoint(PASSIVE)"))).one()
            if frames == saved:
                self._file.log_saved()

    async def _commit(self, tx: SqliteTransaction) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._commits, tx.commit)
        except StorageUnavailable:
            tx.run_doubt_hooks()
            raise
        tx.run_hooks()


async def _start(connection: AsyncConnection, *, patient: bool) -> None:
    """Open a connection. Cancelled in the middle of it, nobody would close the file, so a cancellation waits.

    Where there is no thread for it, that is trouble with the storage to who is `patient`, and hears of no Overloaded.
    """
    try:
        await uninterrupted(connection.start())
    except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
        raise StorageUnavailable from error
    except RuntimeError as error:
        if not is_scarcity(error):
            raise
        raise (StorageUnavailable if patient else Overloaded) from error


async def _when_free(attempt: Callable[[], Awaitable[Value]], until: float | None = None) -> Value:
    """What `attempt` returns once no lock of another process is in its way, if that is before a time of the loop.

    Whoever has waited in the queue of writers for longer does not wait again.
    """
    for number in itertools.count():
        try:
            return await attempt()
        except StorageUnavailable as error:
            now = asyncio.get_running_loop().time()
            until = now + BUSY_SECONDS if until is None else until
            if not is_busy(error) or now > until:
                raise
        await asyncio.sleep(retry_seconds(number) / 10)
    raise AssertionError("the loop has no end")


def _long_engine(file: Path) -> AsyncEngine:
    """The connections of long reads. They open the file for reading, so they make none where it was moved away."""
    uri = f"{file.absolute().as_uri()}?mode=ro"

    def connect() -> aiosqlite.Connection:
        connection = aiosqlite.connect(uri, uri=True, timeout=BUSY_SECONDS, cached_statements=512)
        connection._thread.daemon = True  # as SQLAlchemy has it where it connects: a thread keeps no process alive
        return connection

    return create_async_engine(
        "sqlite+aiosqlite://",
        async_creator=connect,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=LONG_READS,
        max_overflow=0,
        pool_reset_on_return=None,  # nothing is begun on them
        hide_parameters=True,
        isolation_level="AUTOCOMMIT",
    )


def _engine(url: URL, pragmas: tuple[str, ...]) -> sa.Engine:
    engine = sa.create_engine(
        url.set(drivername="sqlite"),
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "cached_statements": 512},  # more than all statements of ours
        hide_parameters=True,  # or errors and logs would hold what requests do
        isolation_level="AUTOCOMMIT",  # we begin transactions, so that statements of Core and the driver share them
    )

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _: Any) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    return engine
