"""The database's clock, for use inside statements. Servers whose own clocks differ agree on it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from blobhub_server.db.schema import Time


class now(FunctionElement[datetime]):
    """The time at which the statement runs, in whole microseconds like `Time`. SQLite's clock has milliseconds."""

    type = Time()
    inherit_cache = True


@compiles(now, "postgresql")
def _compile_for_postgresql(_element: now, _compiler: Any, **_: Any) -> str:
    # Not `now()`: that is when the transaction began, and it may have waited for a lock since.
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


@compiles(now, "sqlite")
def _compile_for_sqlite(_element: now, _compiler: Any, **_: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000"
