"""Rows and records: each becomes the other by name, in one way for every store.

A record is a dataclass. Its fields are the columns of the same names. A column's type says how it stores a value
(`db/schema.py`). Where fields and columns are not one to one, a `ColumnGroup` of the mapper says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import sqlalchemy as sa

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Value = TypeVar("Value")
Value_co = TypeVar("Value_co", covariant=True)
Other = TypeVar("Other")
Record = TypeVar("Record", bound="DataclassInstance")

Row = Sequence[Any]
"""A row as the driver returns it: the values of its columns, in order."""


class Shape(Protocol[Value_co]):
    """What a row of a statement becomes."""

    def reader(self, names: Sequence[str]) -> Callable[[Row], Value_co]:
        """A function that reads rows of columns with these names, in this order.

        Raises KeyError when a name is missing, and TypeError when two are the same.
        """


@dataclass(frozen=True, slots=True)
class ColumnGroup:
    """Fields of a record that are stored in columns of other names.

    `load` makes the fields from a row, by name, and `dump` the columns from a record.
    """

    fields: Sequence[str]
    columns: Sequence[str]
    load: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    dump: Callable[[Any], Mapping[str, Any]]


class Mapper(Generic[Record]):
    """Maps a class of records to a table. Raises KeyError for a field that is neither a column nor accounted for.

    `looked_up` holds the fields that are not columns of the table, each with an expression that reads it. `columns` are what
    to select for a record.
    """

    def __init__(
        self,
        record: type[Record],
        table: sa.Table,
        *,
        groups: Sequence[ColumnGroup] = (),
        looked_up: Mapping[str, sa.ColumnElement[Any]] | None = None,
    ) -> None:
        self._record = record
        self._groups = groups
        elsewhere = {name for group in groups for name in group.fields}
        looked_up = looked_up or {}
        self._fields = [field.name for field in fields(record) if field.name not in elsewhere]
        self._stored = [name for name in self._fields if name not in looked_up]
        self._values = _getter(attrgetter, self._stored)
        found = {**{name: table.c[name] for name in self._stored}, **looked_up}
        named = [column if getattr(column, "name", "") == name else column.label(name) for name, column in found.items()]
        self.columns = [*named, *(table.c[name] for group in groups for name in group.columns)]

    def select(self, *beside: sa.ColumnElement[Any]) -> sa.Select[Any]:
        """A query of records, and of other columns beside them."""
        return sa.select(*self.columns, *beside)

    def row(self, record: Record) -> dict[str, Any]:
        """The columns of a record, by name."""
        row = dict(zip(self._stored, self._values(record), strict=True))
        for group in self._groups:
            row.update(group.dump(record))
        return row

    def reader(self, names: Sequence[str]) -> Callable[[Row], Record]:
        """Raises KeyError when a field is not among the names, TypeError when two names are the same."""
        record, groups = self._record, self._groups
        places = _places(names)
        if groups:
            return self._by_groups(places)
        # Names are looked up once, here. Building each record by keyword would take two thirds longer.
        pick = _getter(itemgetter, [places[name] for name in self._fields])
        return lambda row: record(*pick(row))

    def _by_groups(self, places: Mapping[str, int]) -> Callable[[Row], Record]:
        kept = [(name, places[name]) for name in self._fields]
        grouped = [(group, [(name, places[name]) for name in group.columns]) for group in self._groups]

        def read(row: Row) -> Record:
            values = {name: row[place] for name, place in kept}
            for group, columns in grouped:
                values.update(group.load({name: row[place] for name, place in columns}))
            return self._record(**values)

        return read

    def all(self, result: sa.Result[Any]) -> list[Record]:
        """The records of a result, for statements that are built where they are needed. Raises what `reader` raises."""
        return [*map(self.reader(tuple(result.keys())), result)]


@dataclass(frozen=True, slots=True)
class Scalar(Generic[Value]):
    """The value of one column: the first one, or the named one."""

    type: type[Value]
    name: str = ""

    def reader(self, names: Sequence[str]) -> Callable[[Row], Value]:
        """Raises KeyError when there is no column of the name, TypeError when two columns have one name."""
        return itemgetter(_places(names)[self.name] if self.name else 0)


@dataclass(frozen=True, slots=True)
class Pair(Generic[Value, Other]):
    """Two things of one row."""

    first: Shape[Value]
    second: Shape[Other]

    def reader(self, names: Sequence[str]) -> Callable[[Row], tuple[Value, Other]]:
        first, second = self.first.reader(names), self.second.reader(names)
        return lambda row: (first(row), second(row))


def _places(names: Sequence[str]) -> Mapping[str, int]:
    places = {name: place for place, name in enumerate(names)}
    if len(places) != len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise TypeError(f"several columns are called {', '.join(repeated)}; label all but one")
    return places


def _getter(make: Callable[..., Callable[[Any], Any]], keys: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """`itemgetter` or `attrgetter` of keys. Those of the library make no tuple of one key, and refuse none."""
    if len(keys) > 1:
        return make(*keys)
    getters = [make(key) for key in keys]
    return lambda item: tuple(get(item) for get in getters)
