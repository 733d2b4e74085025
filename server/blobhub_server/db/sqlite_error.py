"""What SQLite's errors are about: the statement, or the file and the disk under it."""

from __future__ import annotations

import sqlite3
from typing import NoReturn

import sqlalchemy as sa

from blobhub_server.errors import StorageFull, StorageUnavailable

_GROUND_TROUBLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,  # others came first too often
    }
)
"""Primary result codes (https://www.sqlite.org/rescode.html)."""


def raise_translated(error: sqlite3.Error | sa.exc.DBAPIError, sql: str | None = None) -> NoReturn:
    """Raise a driver's error as Core does, or as StorageUnavailable if it is about the file and the disk."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    code = primary_code(cause)
    if code == sqlite3.SQLITE_FULL:
        raise StorageFull from cause
    if code in _GROUND_TROUBLE:
        raise StorageUnavailable from cause
    if isinstance(error, sa.exc.DBAPIError):
        raise error
    raise sa.exc.DBAPIError.instance(sql, None, error, sqlite3.Error, hide_parameters=True) from error


def primary_code(error: BaseException | None) -> int:
    """SQLite's result code without what says more exactly which; 0 for what is no error of a statement."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: StorageUnavailable) -> bool:
    """Whether another process holds the write lock."""
    return primary_code(error.__cause__) == sqlite3.SQLITE_BUSY
