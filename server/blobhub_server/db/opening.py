"""Opening a database by its URL: the one place that knows what databases there are."""

from __future__ import annotations

import re

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from blobhub_server.db.engine import Database
from blobhub_server.start import StartError


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


async def open_database(url: str) -> Database:
    """Open a database by its URL. Raises StartError, and DatabaseInUse when another server has it."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        from blobhub_server.db.sqlite import SqliteDatabase  # noqa: PLC0415  only the database in use is imported

        return SqliteDatabase(parsed)
    from blobhub_server.db.postgresql import PostgresqlDatabase  # noqa: PLC0415  an extra, and slow to import

    return PostgresqlDatabase(parsed)
