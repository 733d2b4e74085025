"""What a database does for the rest of the server: transactions to read in and to write in.

There are two, `db/sqlite.py` and `db/postgresql.py`; the same statements run on both.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import URL

from blobhub_server.db.prepared import Prepared
from blobhub_server.db.records import Row

log = structlog.get_logger()

Result = sa.CursorResult[*tuple[Any, ...]]
Value = TypeVar("Value")

IntegrityError = sa.exc.IntegrityError
"""A unique index has such a row already, or a foreign key points nowhere."""

MAX_ATTEMPTS = 3
RETRY_SECONDS = 0.05
"""Before the second attempt, and once more before each that follows."""

RETRYABLE_STATES = ("40001", "40P01")
"""What PostgreSQL says of a transaction that it has ended for the sake of others: serialization failure, deadlock."""


class Transaction(ABC):
    """A connection inside `read` or `write`."""

    dialect: sa.Dialect

    def __init__(self) -> None:
        self._hooks: list[Callable[[], None]] = []

    async def first(self, query: Prepared[Value], /, **parameters: Any) -> Value | None:
        """The first of what a query finds, if it finds anything."""
        found = await self.all(query, **parameters)
        return found[0] if found else None

    async def one(self, query: Prepared[Value], /, **parameters: Any) -> Value:
        """What a query finds that always finds something."""
        return (await self.all(query, **parameters))[0]

    async def all(self, query: Prepared[Value], /, **parameters: Any) -> list[Value]:
        """All that a query finds."""
        compiled = query.compiled(self.dialect)
        return compiled.rows(await self._fetch(compiled.sql, compiled.values(parameters)))

    async def run(self, statement: Prepared[Any], /, **parameters: Any) -> None:
        """Run a statement for what it does."""
        compiled = statement.compiled(self.dialect)
        await self._fetch(compiled.sql, compiled.values(parameters))

    async def run_each(self, statement: Prepared[Value], rows: Iterable[Mapping[str, Any]]) -> list[Value]:
        """Run a statement once for each of many parameters, in one go; return what it returned, if it returns anything."""
        compiled = statement.compiled(self.dialect)
        values = [compiled.values(row) for row in rows]
        if not values:
            return []
        return compiled.rows(await self._fetch_each(compiled.sql, values, returning=compiled.read is not None))

    @abstractmethod
    async def execute(self, statement: sa.Executable, parameters: Any = None) -> Result:
        """Run a statement that is made where it is needed; a list of parameters runs it once for each in one go."""

    @abstractmethod
    async def _fetch(self, sql: str, values: Row) -> Sequence[Row]:
        """Have the driver run a statement, and return its rows."""

    @abstractmethod
    async def _fetch_each(self, sql: str, values: Sequence[Row], *, returning: bool) -> Sequence[Row]:
        """Have the driver run a statement once for each of many parameters; with `returning` return all rows."""

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """A part that can fail by itself: on an exception what it did is undone, the transaction lives on.

        The hooks that it has registered are forgotten with it: what they would tell has not happened.
        """
        before = len(self._hooks)
        try:
            async with self._savepoint():
                yield
        except BaseException:
            del self._hooks[before:]
            raise

    @abstractmethod
    def _savepoint(self) -> AbstractAsyncContextManager[Any]:
        """A savepoint of the database."""

    def after_commit(self, hook: Callable[[], None]) -> None:
        """Call `hook` once the transaction is committed; never when it, or the savepoint around this, is rolled back."""
        self._hooks.append(hook)

    def run_hooks(self) -> None:
        """Run the hooks. One that fails is logged: it must not make what is committed look as if it were not."""
        for hook in self._hooks:
            try:
                hook()
            except Exception:
                log.exception("after_commit_failed")


class Database(ABC):
    """An open database.

    `exclusive` says that no other server can have it open: then this server's doorbells and caches tell everything.
    """

    url: URL
    exclusive: bool

    @abstractmethod
    def read(self) -> AbstractAsyncContextManager[Transaction]:
        """A connection to read with. Each statement sees what is committed when it runs."""

    @abstractmethod
    def write(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction: committed when the block ends, rolled back when it raises.

        The commit and its hooks are not interrupted: a caller that is cancelled meanwhile leaves nothing open.
        """

    @abstractmethod
    def reserved(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction like that of `write`, on a connection that is kept for such: the others may all be busy for long.

        For what has to be in time, and is short.
        """

    async def transact(self, work: Callable[[Transaction], Awaitable[Value]]) -> Value:
        """Do `work` in a transaction and return what it returns.

        Where the transaction had to give way to others nothing of it has happened, and it is done again, twice at most.
        """
        for attempt in range(1, MAX_ATTEMPTS):
            try:
                async with self.write() as tx:
                    return await work(tx)
            except sa.exc.DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in RETRYABLE_STATES:
                    raise
                log.warning("transaction_gave_way")
                # Those it gave way to shall come first: at once, it might get in between them again.
                await asyncio.sleep(RETRY_SECONDS * attempt)
        async with self.write() as tx:
            return await work(tx)

    @abstractmethod
    async def close(self) -> None:
        """Close every connection."""
