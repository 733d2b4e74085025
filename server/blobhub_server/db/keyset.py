"""Keyset pages: a page begins after the last key of the page before, so inserts neither skip nor repeat anything.

There is no OFFSET and no count. An index gives the order and is read from the key on; rows that a filter excludes are
skipped on the way. So a page costs the same wherever it is, and reading a whole list reads the index once at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from blobhub_server.db.schema import Time
from blobhub_server.errors import InvalidPageToken

_SEPARATOR = "\t"
_LAST = "\U0010ffff"

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a list: by columns whose values together are unique in it.

    The columns are text that is ordered by code points (`Name`, `Id`), `Time` and `Id`, or a number from 0 on. `joined` is a
    column of another table that equals the only column here; a query that starts from that table is ordered by it, to use
    its index.
    """

    columns: tuple[sa.Column[Any], ...]
    descending: bool = False
    joined: sa.Column[Any] | None = None

    @classmethod
    def parse(
        cls,
        table: sa.Table,
        order_by: str,
        *,
        create_time: Sequence[str] = ("id",),
        joined: sa.Column[str] | None = None,
    ) -> Order:
        """The order that a request asks for: the name of a column, perhaps followed by ` desc` (AIP-132).

        `create_time` orders by id, because ids are UUIDv7, unless it is told other columns; `joined` is another column with
        the same id. Any other column needs no second one: it is unique in the list.
        """
        name, _, direction = order_by.partition(" ")
        columns = {"create_time": create_time, "update_time": ("update_time", "id")}.get(name, (name,))
        chosen = tuple(table.c[column] for column in columns)
        return cls(columns=chosen, descending=bool(direction), joined=joined if name == "create_time" else None)

    def apply(self, query: sa.Select[Any], after: str, limit: int | None) -> sa.Select[Any]:
        """Limit a query to the first rows after a key, in order; None is all of them. Raises InvalidPageToken."""
        query = self.after(query, after)
        columns = self.columns if self.joined is None else (self.joined,)
        return query.order_by(*(column.desc() if self.descending else column for column in columns)).limit(limit)

    def after(self, query: sa.Select[Any], after: str) -> sa.Select[Any]:
        """Limit a query to the rows after a key. Raises InvalidPageToken."""
        if after:
            query = query.where(self._follows(after, *self.columns))
        if after and self.joined is not None:
            query = query.where(self._follows(after, self.joined))
        return query

    def _follows(self, after: str, *columns: sa.Column[Any]) -> sa.ColumnElement[bool]:
        values = [sa.literal(value, column.type) for value, column in zip(self._values(after), columns, strict=True)]
        left, right = (columns[0], values[0]) if len(values) == 1 else (sa.tuple_(*columns), sa.tuple_(*values))
        return left < right if self.descending else left > right

    def begins(self, column: sa.Column[str], prefix: str, after: str) -> sa.ColumnElement[bool]:
        """The condition that a text begins with a prefix, in a page that follows a key.

        When the list is ordered by the text, the key is the only lower bound: given two bounds, SQLite may start at the
        looser one. When it is not, the text is wrapped in an expression, so that the database does not use an index on the
        text and then has to sort what it finds.
        """
        ordered = column is self.columns[0]
        text = column if ordered else column.concat(sa.literal_column("''"))
        bounds = (text >= prefix, text < prefix + _LAST)
        return sa.and_(*bounds) if not (after and ordered) else bounds[0] if self.descending else bounds[1]

    def merge(self, records: Iterable[Record], limit: int) -> list[Record]:
        """The first `limit` of some records, in order."""
        names = [column.name for column in self.columns]
        ordered = sorted(records, key=lambda record: [getattr(record, name) for name in names], reverse=self.descending)
        return ordered[:limit]

    def key(self, record: Any) -> str:
        """The key of a record, for the token of the next page."""
        values = [getattr(record, column.name) for column in self.columns]
        return _SEPARATOR.join(value.isoformat() if isinstance(value, datetime) else str(value) for value in values)

    def _values(self, key: str) -> list[Any]:
        values = key.split(_SEPARATOR)
        if len(values) != len(self.columns):
            raise InvalidPageToken
        try:
            return [_value(column, value) for value, column in zip(values, self.columns, strict=True)]
        except ValueError:
            raise InvalidPageToken from None


def _value(column: sa.Column[Any], text: str) -> Any:
    """Raises ValueError."""
    if isinstance(column.type, Time):
        return datetime.fromisoformat(text)
    if isinstance(column.type, sa.BigInteger):
        if re.fullmatch("[0-9]{1,18}", text) is None:
            raise ValueError(text)
        return int(text)
    return text


def union(queries: Iterable[sa.Select[Any]]) -> sa.CompoundSelect[Any]:
    """Several queries in one statement, so that all see the same data. `Order.merge` puts their rows in order."""
    return sa.union_all(*(query.subquery().select() for query in queries))
