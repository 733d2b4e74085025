"""What a database does for the rest of the server: transactions to read in and to write in.

There are two, `db/sqlite.py` and `db/postgresql.py`; the same statements run on both.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url

from blobhub_server.start import StartError

log = structlog.get_logger()

Result = sa.CursorResult[*tuple[Any, ...]]
Value = TypeVar("Value")

IntegrityError = sa.exc.IntegrityError
"""A unique index has such a row already, or a foreign key points nowhere."""

ATTEMPTS = 3
GAVE_WAY = ("40001", "40P01")
"""What PostgreSQL says of a transaction that it has ended for the sake of others: serialization failure, deadlock."""


class Transaction(ABC):
    """A connection inside `read` or `write`."""

    dialect: str

    def __init__(self) -> None:
        self._hooks: list[Callable[[], None]] = []

    @abstractmethod
    async def execute(self, statement: sa.Executable, parameters: Any = None) -> Result:
        """Run a statement; a list of parameters runs it once for each in one go."""

    @abstractmethod
    def savepoint(self) -> AbstractAsyncContextManager[Any]:
        """A part that can fail by itself: on an exception what it did is undone, the transaction lives on."""

    def after_commit(self, hook: Callable[[], None]) -> None:
        """Call `hook` once the transaction is committed; never when it is not."""
        self._hooks.append(hook)

    def committed(self) -> None:
        """Run the hooks. One that fails is logged: it must not make what is committed look as if it were not."""
        for hook in self._hooks:
            try:
                hook()
            except Exception:
                log.exception("after_commit_failed")

    def upsert(
        self, table: sa.Table, *, keys: Sequence[Any], changed: Sequence[Any], where: sa.TextClause | None = None
    ) -> Any:
        """An insert that, where a row with the same `keys` exists, sets its `changed` columns instead; nothing for none.

        `where` is the condition of the unique index on `keys`, if that is a partial one.
        """
        insert = (postgresql if self.dialect == "postgresql" else sqlite).insert(table)
        if not changed:
            return insert.on_conflict_do_nothing(index_elements=list(keys), index_where=where)
        return insert.on_conflict_do_update(
            index_elements=list(keys),
            index_where=where,
            set_={column.name: insert.excluded[column.name] for column in changed},
        )


def locked(query: sa.Select[Any]) -> sa.Select[Any]:
    """The query, its rows to be locked and changed by nobody else until the transaction ends.

    Rows that refer to them can be written meanwhile. PostgreSQL locks what a foreign key points to (when a row is made, and
    when one is changed twice in a transaction), from the child to the parent: against our order, but not in its way.
    """
    return query.with_for_update(key_share=True)


def shared(query: sa.Select[Any]) -> sa.Select[Any]:
    """The query, its rows to be changed by nobody until the transaction ends, which others may ask for as well."""
    return query.with_for_update(read=True)


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
        for _ in range(ATTEMPTS - 1):
            try:
                async with self.write() as tx:
                    return await work(tx)
            except sa.exc.DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in GAVE_WAY:
                    raise
                log.warning("transaction_gave_way")
        async with self.write() as tx:
            return await work(tx)

    @abstractmethod
    async def close(self) -> None:
        """Close every connection."""


def parsed(url: str) -> URL:
    """A database URL. Raises StartError unless it names a database that BlobHub runs on.

    What libpq and its friends write is understood: `postgres://`, and `sslmode`, which the driver calls `ssl`.
    """
    try:
        made = make_url(re.sub("^postgres:", "postgresql:", url))
    except sa.exc.ArgumentError:
        raise StartError("BLOBHUB_DATABASE_URL is not a database URL") from None
    if made.get_backend_name() == "sqlite" and made.database in (None, "", ":memory:"):
        raise StartError("BLOBHUB_DATABASE_URL names no file")
    if "sslmode" in made.query:
        made = made.difference_update_query(["sslmode"]).update_query_dict({"ssl": made.query["sslmode"]})
    if made.get_backend_name() not in ("sqlite", "postgresql"):
        raise StartError(f"BLOBHUB_DATABASE_URL names a {made.get_backend_name()} database; there are sqlite and postgresql")
    return made


async def open_database(url: str) -> Database:
    """Open a database by its URL. Raises StartError, and DatabaseInUse when another server has it."""
    made = parsed(url)
    if made.get_backend_name() == "sqlite":
        from blobhub_server.db.sqlite import SqliteDatabase  # noqa: PLC0415  only the database in use is imported

        return SqliteDatabase(made)
    from blobhub_server.db.postgresql import PostgresqlDatabase  # noqa: PLC0415  an extra, and slow to import

    return PostgresqlDatabase(made)
