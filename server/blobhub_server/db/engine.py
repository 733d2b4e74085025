"""Opening the database, reading it, writing to it.

SQLite has one writer at a time by nature; here it has one by design, with a queue, so that nobody meets a busy database.
Readers run beside it (WAL). PostgreSQL has a pool for both.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from blobhub_server.start import StartError

READERS = 4
POOL = 10


class DatabaseInUse(StartError):
    """Another server has the same SQLite database open."""


class Transaction:
    """A connection inside `read` or `write`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._hooks: list[Callable[[], None]] = []

    async def execute(self, statement: sa.Executable, parameters: Any = None) -> sa.CursorResult[*tuple[Any, ...]]:
        """Run a statement; a list of parameters runs it once for each in one go."""
        return await self.connection.execute(statement, parameters)

    def after_commit(self, hook: Callable[[], None]) -> None:
        """Call `hook` once the transaction is committed; never when it is not."""
        self._hooks.append(hook)

    def committed(self) -> None:
        """Run the hooks."""
        for hook in self._hooks:
            hook()

    def savepoint(self) -> AbstractAsyncContextManager[Any]:
        """A part that can fail by itself: on an exception what it did is undone, the transaction lives on."""
        return self.connection.begin_nested()

    def upsert(self, table: sa.Table, *, keys: Sequence[Any], changed: Sequence[Any]) -> Any:
        """An insert that, where a row with the same `keys` exists, sets its `changed` columns instead."""
        dialect = postgresql if self.connection.dialect.name == "postgresql" else sqlite
        insert = dialect.insert(table)
        return insert.on_conflict_do_update(
            index_elements=list(keys), set_={column.name: insert.excluded[column.name] for column in changed}
        )


def normalised(url: str) -> URL:
    """The URL with the asynchronous driver that BlobHub uses for its database. Raises StartError for another one."""
    try:
        made = make_url(url)
    except sa.exc.ArgumentError:
        raise StartError("BLOBHUB_DATABASE_URL is not a database URL") from None
    backend = made.get_backend_name()
    if backend == "sqlite":
        return made.set(drivername="sqlite+aiosqlite")
    if backend == "postgresql":
        return made.set(drivername="postgresql+asyncpg")
    raise StartError(f"BLOBHUB_DATABASE_URL names a {backend} database; there are sqlite and postgresql")


class Database:
    """An open database.

    `exclusive` says that no other server can have it open: then its own doorbells and caches tell everything.
    """

    def __init__(self, url: URL, readers: AsyncEngine, writer: AsyncEngine, lock: int | None) -> None:
        self.url = url
        self.exclusive = url.get_backend_name() == "sqlite"
        self._readers = readers
        self._writer = writer
        self._lock = lock
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, url: str) -> Database:
        """Open a database by its URL. Raises DatabaseInUse, StartError."""
        made = normalised(url)
        if made.get_backend_name() == "sqlite":
            return cls._open_sqlite(made)
        try:
            import asyncpg  # noqa: F401, PLC0415  an extra, and slow to import
        except ImportError:
            raise StartError("PostgreSQL needs the extra: pip install 'blobhub-server[postgres]'") from None
        engine = create_async_engine(made, pool_size=POOL, max_overflow=POOL, pool_pre_ping=True)
        return cls(made, engine.execution_options(isolation_level="AUTOCOMMIT"), engine, None)

    @classmethod
    def _open_sqlite(cls, url: URL) -> Database:
        path = Path(url.database or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
        common = {"poolclass": AsyncAdaptedQueuePool, "max_overflow": 0, "pool_reset_on_return": None}
        writer = create_async_engine(url, pool_size=1, **common)
        readers = create_async_engine(url, pool_size=READERS, isolation_level="AUTOCOMMIT", **common)
        event.listen(writer.sync_engine, "connect", _on_writer)
        event.listen(writer.sync_engine, "begin", _begin_immediate)
        event.listen(readers.sync_engine, "connect", _on_reader)
        return cls(url, readers, writer, lock)

    async def close(self) -> None:
        """Close every connection and let go of the lock."""
        await self._readers.dispose()
        await self._writer.dispose()
        if self._lock is not None:
            os.close(self._lock)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """A connection to read with. Each statement sees what is committed when it runs."""
        async with self._readers.connect() as connection:
            yield Transaction(connection)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """A transaction: committed when the block ends, rolled back when it raises.

        The commit is shielded: a caller that is cancelled during it does not leave its outcome open.
        """
        if self.exclusive:
            async with self._turn, self._transaction() as tx:
                yield tx
        else:
            async with self._transaction() as tx:
                yield tx

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction]:
        async with self._writer.connect() as connection:
            begun = await connection.begin()
            tx = Transaction(connection)
            try:
                yield tx
            except BaseException:
                await asyncio.shield(begun.rollback())
                raise
            await asyncio.shield(begun.commit())
            tx.committed()


def _lock(path: Path) -> int:
    """Hold `<path>.lock` for as long as this process lives; the kernel lets go of it however the process ends."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise DatabaseInUse(f"another server (pid {holder}) has the database {path} open") from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def _on_writer(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
        connection.cursor().execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _on_reader(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    for pragma in ("query_only=ON", "busy_timeout=5000"):
        connection.cursor().execute(f"PRAGMA {pragma}")
