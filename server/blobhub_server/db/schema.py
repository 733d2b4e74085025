"""What all tables share. Every table is declared by the store module of its noun, on this metadata.

The platform and all blob types share it, so that a type's foreign key can name a table of the platform by a string. A type
lists its own tables (`BlobType.tables`).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Table = sa.Table

IdQuery = sa.Select[tuple[str]]
"""A query of ids, for the `IN` of a statement on all of these rows."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Time(TypeDecorator[datetime]):
    """An aware datetime in UTC, kept as whole microseconds since 1970: exact, ordered, and the same on every database."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> int | None:
        """Store."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Any) -> datetime | None:
        """Load."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Duration(TypeDecorator[timedelta]):
    """A length of time, kept as whole microseconds."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: timedelta | None, dialect: Any) -> int | None:
        """Store."""
        return None if value is None else value // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Any) -> timedelta | None:
        """Load."""
        return None if value is None else timedelta(microseconds=value)


class Choice(TypeDecorator[Enum]):
    """A member of an enum, kept as its value in a column of another type: text, or a small number."""

    impl: Any = sa.String
    cache_ok = True

    def __init__(self, members: type[Enum], kept: sa.types.TypeEngine[Any]) -> None:
        super().__init__()
        self.members, self.kept = members, kept
        self.impl = kept

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """Store."""
        return None if value is None else self.members(value).value

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        """Load."""
        return None if value is None else self.members(value)


class Json(TypeDecorator[Any]):
    """A JSON value other than null, kept as text."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        """Store."""
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: str | None, dialect: Any) -> Any:
        """Load."""
        return None if value is None else json.loads(value)


def Id() -> sa.String:
    """A UUID in its canonical text form."""
    return sa.String(36)


def Name(length: int) -> sa.String:
    """Text that every database orders by code points; PostgreSQL's default order depends on the locale."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
