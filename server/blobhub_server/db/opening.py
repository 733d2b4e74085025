"""Opening a database by its URL: the one place that knows what databases there are."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from blobhub_server.db.engine import Database
from blobhub_server.errors import StorageUnavailable
from blobhub_server.start import StartError

TIMEOUT_SECONDS = 5.0


class Unreachable(StartError):
    """The database cannot be reached."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the database cannot be reached: {why}; see BLOBHUB_DATABASE_URL")


def parse_url(url: str) -> URL:
    """A database URL. Raises StartError unless it names a database that BlobHub runs on.

    The spellings of libpq are accepted: `postgres://`, and `sslmode`, which the driver calls `ssl`.
    """
    try:
        parsed = make_url(re.sub("^postgres:", "postgresql:", url))
    except sa.exc.ArgumentError:
        raise StartError("BLOBHUB_DATABASE_URL is not a database URL") from None
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise StartError("BLOBHUB_DATABASE_URL names no file")
    if "sslmode" in parsed.query:
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": parsed.query["sslmode"]})
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise StartError(
            f"BLOBHUB_DATABASE_URL names a {parsed.get_backend_name()} database; there are sqlite and postgresql"
        )
    return parsed


async def open_database(url: str, application_name: str | None = None) -> Database:
    """Open a database by its URL. Raises StartError: Unreachable, and DatabaseInUse when another server has it.

    PostgreSQL knows the connections by `application_name`; `Database.end_connections` finds them by it.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        from blobhub_server.db.sqlite import SqliteDatabase  # noqa: PLC0415  only the database in use is imported

        with reaching(parsed):
            return SqliteDatabase(parsed)
    from blobhub_server.db.postgresql import PostgresqlDatabase  # noqa: PLC0415  an extra, and slow to import

    database = PostgresqlDatabase(parsed, application_name)
    try:
        # The pool connects when it is first used, which is now, so that what is wrong is said here.
        with reaching(parsed):
            async with asyncio.timeout(TIMEOUT_SECONDS), database.read():
                return database
    except BaseException:
        await database.close()
        raise


@contextmanager
def reaching(url: URL) -> Iterator[None]:
    """Raise Unreachable for whatever keeps a database from being reached."""
    troubles: tuple[type[Exception], ...] = (OSError, sqlite3.Error, sa.exc.DBAPIError, *_driver_errors(url))
    try:
        yield
    except TimeoutError:
        raise Unreachable(f"no answer within {TIMEOUT_SECONDS:g} s") from None
    except StorageUnavailable as error:
        raise Unreachable(_describe(error.__cause__ or error, url)) from None
    except troubles as error:
        raise Unreachable(_describe(error, url)) from None


def _driver_errors(url: URL) -> tuple[type[Exception], ...]:
    """What PostgreSQL's driver raises while it connects; SQLAlchemy translates what it raises later."""
    if url.get_backend_name() == "sqlite":
        return ()
    import asyncpg  # noqa: PLC0415  an extra, and slow to import

    return (asyncpg.PostgresError, asyncpg.InterfaceError)


def _describe(error: BaseException, url: URL) -> str:
    """The driver's own words, on one line."""
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    return text.replace(url.password, "***") if url.password else text
