"""What all tables share. Every table is declared by the store module of its noun, on this metadata.

It is one metadata for the platform and all blob types, so that a foreign key of a type can name a table of the platform by a
string. Which tables are a type's the type says itself (`BlobType.tables`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
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

Selected = sa.Select[tuple[str]]
"""A query of ids, for the `IN` of a statement that is about all of them at once."""

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


def Id() -> sa.String:
    """A UUID in its canonical text form."""
    return sa.String(36)


def Name(length: int) -> sa.String:
    """Text in the order of its code points on every database; PostgreSQL's default is the order of some language."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
