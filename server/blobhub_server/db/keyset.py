"""Keyset pages: a page begins after the key of the last one's end, so that inserts neither skip nor repeat anything.

There is no OFFSET and no count. An index gives the order and is walked from the key on; what a filter keeps out and no
index tells is passed over on the way. So a page costs the same wherever it is, and a whole list at most one walk.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    """An order that a list has: by columns whose values together are unique within it.

    The columns are of text that is ordered by code points (`Name`, `Id`), or `Time` and `Id`. `joined` is a column of
    another table that is equal to the only one, in a query that begins with that table.
    """

    columns: tuple[sa.Column[Any], ...]
    descending: bool = False
    joined: sa.Column[Any] | None = None

    @classmethod
    def parse(cls, table: sa.Table, order_by: str, *, joined: sa.Column[str] | None = None) -> Order:
        """The order that a request asks for: one of the names below, or one with ` desc` (AIP-132).

        `create_time` is the order of the ids, which are UUIDv7, and `joined` another column with the id; an alias is unique
        wherever it is listed.
        """
        name, _, direction = order_by.partition(" ")
        columns = {"create_time": ("id",), "update_time": ("update_time", "id"), "alias": ("alias",)}[name]
        chosen = tuple(table.c[column] for column in columns)
        return cls(chosen, bool(direction), joined if name == "create_time" else None)

    def apply(self, query: sa.Select[Any], after: str, limit: int) -> sa.Select[Any]:
        """The first of a query's rows that follow a key, in order. Raises InvalidPageToken."""
        query = self.after(query, after)
        columns = self.columns if self.joined is None else (self.joined,)
        return query.order_by(*(column.desc() if self.descending else column for column in columns)).limit(limit)

    def after(self, query: sa.Select[Any], after: str) -> sa.Select[Any]:
        """A query's rows that follow a key. Raises InvalidPageToken."""
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

        Where the order is by the text, the key is the one bound: of two, SQLite would begin at the looser one. Where it is
        not, the text is part of an expression, which no index has: what an index of it finds would have to be sorted.
        """
        ordered = column is self.columns[0]
        text = column if ordered else column.concat(sa.literal_column("''"))
        bounds = (text >= prefix, text < prefix + _LAST)
        return sa.and_(*bounds) if not (after and ordered) else bounds[0] if self.descending else bounds[1]

    def merge(self, records: Iterable[Record], limit: int) -> list[Record]:
        """The first of some records, in order."""
        names = [column.name for column in self.columns]
        ordered = sorted(records, key=lambda record: [getattr(record, name) for name in names], reverse=self.descending)
        return ordered[:limit]

    def key(self, record: Any) -> str:
        """The key of a record, for the token of the next page."""
        values = [getattr(record, column.name) for column in self.columns]
        return _SEPARATOR.join(value.isoformat() if isinstance(value, datetime) else value for value in values)

    def _values(self, key: str) -> list[Any]:
        values = key.split(_SEPARATOR)
        if len(values) != len(self.columns):
            raise InvalidPageToken
        try:
            return [
                datetime.fromisoformat(value) if isinstance(column.type, Time) else value
                for value, column in zip(values, self.columns, strict=True)
            ]
        except ValueError:
            raise InvalidPageToken from None


def union(queries: Iterable[sa.Select[Any]]) -> sa.CompoundSelect[Any]:
    """Several queries as one, so that all see the same instant. `Order.merge` puts what they find in order."""
    return sa.union_all(*(query.subquery().select() for query in queries))
