"""Databases and their transactions.

`db/sqlite.py` and `db/postgresql.py` implement them; the same statements run on both.
"""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import URL

from blobhub_server.background import in_turns
from blobhub_server.db.lane import Lane
from blobhub_server.db.prepared import CompiledStatement, Prepared
from blobhub_server.db.records import Row
from blobhub_server.db.trouble import Trouble
from blobhub_server.errors import StorageUnavailable
from blobhub_server.turnstile import Party

log = structlog.get_logger()

CoreResult = sa.CursorResult[*tuple[Any, ...]]
Value = TypeVar("Value")

IntegrityError = sa.exc.IntegrityError
"""A unique index already has such a row, or a foreign key points to no row."""

MAX_ATTEMPTS = 3
RETRY_SECONDS = 0.05
"""The backoff before the second attempt; it grows by as much with each further attempt."""

RETRYABLE_STATES = ("40001", "40P01")
"""SQLSTATEs of transactions that PostgreSQL rolled back so that others can go on: serialization failure, deadlock."""


class TransactionAborted(Exception):
    """The database has rolled back a transaction that was to be committed: a failed statement was passed over in it."""


class Transaction(ABC):
    """A connection inside `read` or `write`.

    Every statement raises DBAPIError when the database refuses it or the connection is lost, IntegrityError (a DBAPIError)
    for a constraint. A prepared one raises KeyError for a parameter that is not given, and TypeError for an unknown one.
    """

    dialect: sa.Dialect

    def __init__(self) -> None:
        self._hooks: list[Callable[[], None]] = []
        self._doubt_hooks: list[Callable[[], None]] = []

    async def first(self, query: Prepared[Value], /, **parameters: Any) -> Value | None:
        """The first row that a query finds; None when it finds none."""
        found = await self.all(query, **parameters)
        return found[0] if found else None

    async def one(self, query: Prepared[Value], /, **parameters: Any) -> Value:
        """The first row of a query that always finds one. Raises IndexError when it finds none."""
        return (await self.all(query, **parameters))[0]

    async def all(self, query: Prepared[Value], /, **parameters: Any) -> list[Value]:
        """All rows that a query finds."""
        compiled = query.compiled(self.dialect)
        return await self._rows(compiled, await self._fetch(compiled.sql, compiled.values(parameters)))

    async def _rows(self, compiled: CompiledStatement[Value], rows: Sequence[Row]) -> list[Value]:
        """What the driver's rows become."""
        return compiled.rows(rows)

    async def run(self, statement: Prepared[Any], /, **parameters: Any) -> None:
        """Run a statement that returns nothing."""
        compiled = statement.compiled(self.dialect)
        await self._fetch(compiled.sql, compiled.values(parameters))

    async def run_each(self, statement: Prepared[Value], rows: Iterable[Mapping[str, Any]]) -> list[Value]:
        """Run a statement once for each row of parameters, in one round trip; return the rows that it returns, if any.

        The first row that the database refuses raises; rows before it are undone with the transaction or its savepoint.
        """
        compiled = statement.compiled(self.dialect)
        values = await in_turns(compiled.values, rows)
        if not values:
            return []
        return compiled.rows(await self._fetch_each(compiled.sql, values, returning=compiled.read is not None))

    @abstractmethod
    async def execute(self, statement: sa.Executable, parameters: Any = None) -> CoreResult:
        """Run a statement of SQLAlchemy Core; with a list of parameters, once for each."""

    async def execute_beside(self, statement: sa.Executable) -> CoreResult:
        """Run a statement that takes long for how much it goes over, without holding the event loop."""
        return await self.execute(statement)

    @abstractmethod
    async def _fetch(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        """Have the driver run a statement, and return its rows."""

    @abstractmethod
    async def _fetch_each(self, sql: str, values: Sequence[Sequence[Any]], *, returning: bool) -> Sequence[Row]:
        """Have the driver run a statement once for each of many parameters; with `returning` return all rows."""

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Roll back to here when the block raises; the transaction itself can go on.

        Hooks that the block registered are dropped too, because what they would announce has not happened.
        """
        before, doubts_before = len(self._hooks), len(self._doubt_hooks)
        try:
            async with self._savepoint():
                yield
        except BaseException:
            del self._hooks[before:]
            del self._doubt_hooks[doubts_before:]
            raise

    @abstractmethod
    def _savepoint(self) -> AbstractAsyncContextManager[Any]:
        """A savepoint of the database."""

    def after_commit(self, hook: Callable[[], None]) -> None:
        """Call `hook` after the commit, unless the savepoint around this call is rolled back."""
        self._hooks.append(hook)

    def when_in_doubt(self, hook: Callable[[], None]) -> None:
        """Call `hook` when the commit fails and may have been made, unless the savepoint around this call is rolled back."""
        self._doubt_hooks.append(hook)

    def run_hooks(self) -> None:
        """Run the hooks. A failing hook is logged and not raised, because the transaction is committed all the same."""
        _run(self._hooks)

    def run_doubt_hooks(self) -> None:
        """Run those for a commit that has failed and may have been made."""
        _run(self._doubt_hooks)


def _run(hooks: Iterable[Callable[[], None]]) -> None:
    for hook in hooks:
        try:
            hook()
        except Exception:
            log.exception("after_commit_failed")


class LongRead(Transaction):
    """A connection inside `scan`. It reads, and what it finds may be long, so it is made into records in turns."""

    async def _rows(self, compiled: CompiledStatement[Value], rows: Sequence[Row]) -> list[Value]:
        return await in_turns(compiled.read, rows) if compiled.read else []


class Database(ABC):
    """An open database. Where it cannot be used now, all of this raises StorageUnavailable.

    `exclusive` says that no other server can have it open, so doorbells and caches of this process are complete. What meets
    trouble and is not a call reports it to `trouble`; calls are answered with it, and their pipeline reports it.
    """

    exclusive: bool

    def __init__(self, url: URL) -> None:
        self.url = url
        self.trouble = Trouble()
        self._lane = Lane()

    @abstractmethod
    def read(self) -> AbstractAsyncContextManager[Transaction]:
        """A connection to read with what is short: a few rows, found by an index. Each statement sees what is committed.

        What grows with the data goes by `scan`.
        """

    @abstractmethod
    def scan(self, party: Party, *, patient: bool = False) -> AbstractAsyncContextManager[Transaction]:
        """A connection to read with what grows with the data: lists, logs, counts, checks of many things.

        It takes its time from no short statement: its connections are its own, and no statement holds the event loop. Each
        statement sees what is committed when it runs. Reads take turns by `party`, whoever they are for; where many wait,
        one of whoever has the most waiting raises Overloaded. Who is `patient` has turns apart and waits for them: streams,
        whose number is bounded, and the server's own work.
        """

    @abstractmethod
    def write(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction: committed when the block ends, rolled back when it raises.

        The commit and its hooks run to the end even when the caller is cancelled. Raises DBAPIError when the commit is
        refused; then nothing is committed. When StorageUnavailable is raised, it may have been committed all the same.
        """

    @abstractmethod
    def reserved(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction like that of `write`, on a connection of its own, for short work that must not wait for the pool.

        Leases are renewed on it: slow statements on all other connections must not cost a server its lease.
        """

    async def transact(self, work: Callable[[Transaction], Awaitable[Value]]) -> Value:
        """Do `work` in a transaction and return what it returns.

        A transaction that the database rolled back for a deadlock or a serialization failure is tried again, twice at most.
        Raises what `work` and `write` raise.
        """
        for attempt in itertools.count(1):
            try:
                async with self.write() as tx:
                    return await work(tx)
            except sa.exc.DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in RETRYABLE_STATES:
                    raise
                log.warning("transaction_gave_way", attempt=attempt)
                if attempt == MAX_ATTEMPTS:
                    raise StorageUnavailable from error
                # Without a pause it would collide with the same transactions again.
                await asyncio.sleep(RETRY_SECONDS * attempt)
        raise AssertionError("the loop has no end")

    @abstractmethod
    async def end_connections(self, application_names: Sequence[str]) -> None:
        """End the connections of other servers, and with them the locks that they hold; not their reserved ones."""

    @abstractmethod
    async def probe(self) -> None:
        """Write something, which leaves nothing behind. Raises StorageUnavailable when nothing can be written."""

    @abstractmethod
    async def close(self) -> None:
        """Close every connection."""
