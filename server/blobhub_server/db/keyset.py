"""Keyset pages: a page begins after the key of the last one's end, so that inserts neither skip nor repeat anything.

There is no OFFSET and no count, and an index gives the order: a page costs the same wherever it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from blobhub_server.db.schema import Time
from blobhub_server.errors import InvalidPageToken

_SEPARATOR = "\t"


@dataclass(frozen=True, slots=True)
class Order:
    """An order that a list can be asked for: by a column, and by id among equals.

    `column` is None for the order by id alone, which is that of creation: ids are UUIDv7.
    """

    id: sa.Column[Any]
    column: sa.Column[Any] | None = None
    descending: bool = False

    @classmethod
    def by(cls, table: sa.Table, order_by: str) -> Order:
        """The order that a request asks for: `create_time`, another column, or one of them with ` desc` (AIP-132)."""
        name, _, direction = order_by.partition(" ")
        return cls(table.c.id, None if name == "create_time" else table.c[name], bool(direction))

    def apply(self, query: sa.Select[Any], after: str, limit: int) -> sa.Select[Any]:
        """The part of a query's rows that follows a key, in order. Raises InvalidPageToken."""
        columns = [self.id] if self.column is None else [self.column, self.id]
        if after:
            values = [sa.literal(value, column.type) for value, column in zip(self._values(after), columns, strict=True)]
            left, right = (columns[0], values[0]) if len(columns) == 1 else (sa.tuple_(*columns), sa.tuple_(*values))
            query = query.where(left < right if self.descending else left > right)
        return query.order_by(*(column.desc() if self.descending else column for column in columns)).limit(limit)

    def key(self, record: Any) -> str:
        """The key of a record, for the token of the next page."""
        if self.column is None:
            return str(record.id)
        value = getattr(record, self.column.name)
        return f"{value.isoformat() if isinstance(value, datetime) else value}{_SEPARATOR}{record.id}"

    def _values(self, key: str) -> list[Any]:
        if self.column is None:
            return [key]
        value, separator, id_ = key.partition(_SEPARATOR)
        try:
            parsed = datetime.fromisoformat(value) if isinstance(self.column.type, Time) else value
        except ValueError:
            raise InvalidPageToken from None
        if not separator:
            raise InvalidPageToken
        return [parsed, id_]
