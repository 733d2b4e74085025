"""Statements that are compiled once.

Core turns a statement into text and knows how values of each column type are bound and read. The result is the same every
time, and making it takes longer than SQLite needs to run the statement. So a store declares what runs often as a `Prepared`:
Core compiles it the first time, and from then on the driver executes the text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, overload

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeDecorator

from blobhub_server.db.records import Row, Shape, Value

Statement = sa.SelectBase | sa.UpdateBase
Processor = Callable[[Any], Any]


class Prepared(Generic[Value]):
    """A statement whose values are parameters, by name (`sa.bindparam`), and what its rows become.

    `statement` is one for every database, or, as from `upsert`, one for each.
    """

    @overload
    def __init__(self: Prepared[None], statement: Statement | Mapping[str, Statement]) -> None: ...
    @overload
    def __init__(self, statement: Statement | Mapping[str, Statement], shape: Shape[Value]) -> None: ...
    def __init__(self, statement: Statement | Mapping[str, Statement], shape: Shape[Any] | None = None) -> None:
        self._statement = statement
        self._shape = shape
        self._compiled: dict[str, CompiledStatement[Value]] = {}

    @cached_property
    def locking(self) -> Prepared[Value]:
        """The same query with its rows locked (`lock_rows`). Raises TypeError unless this is a query with a shape."""
        if not isinstance(self._statement, sa.Select) or self._shape is None:
            raise TypeError("only the rows of a query can be locked")
        return Prepared(lock_rows(self._statement), self._shape)

    def compiled(self, dialect: sa.Dialect) -> CompiledStatement[Value]:
        """The statement as a database's driver takes it.

        Raises TypeError when its text would depend on its parameters, or two of its columns have one name.
        """
        found = self._compiled.get(dialect.name)
        if found is None:
            statement = self._statement if isinstance(self._statement, Statement) else self._statement[dialect.name]
            found = self._compiled[dialect.name] = _compile(statement, self._shape, dialect)
        return found


@dataclass(frozen=True, slots=True)
class CompiledStatement(Generic[Value]):
    """A statement for a driver: its text, the names of its parameters in order, and how its rows are read.

    A name occurs in `names` as often as in the text, and once in `count`. `processors` convert parameters, by position; most
    types need no conversion. `fixed` holds values that the statement itself contains. `read` is None for a statement that
    returns no rows.
    """

    sql: str
    names: Sequence[str]
    count: int
    processors: Sequence[tuple[int, Processor]]
    fixed: Mapping[str, Any]
    read: Callable[[Row], Value] | None

    def values(self, given: Mapping[str, Any]) -> list[Any]:
        """Parameters as the driver takes them. Raises KeyError for one that is not given, TypeError for an unknown one."""
        if self.fixed:
            given = {**self.fixed, **given}
        values = [given[name] for name in self.names]
        if len(given) != self.count:
            raise TypeError(f"the statement has no parameters {sorted({*given} - {*self.names})}")
        for place, process in self.processors:
            values[place] = process(values[place])
        return values

    def rows(self, rows: Sequence[Row]) -> list[Value]:
        """What the driver's rows become."""
        return [*map(self.read, rows)] if self.read else []


def _compile(statement: Statement, shape: Shape[Value] | None, dialect: sa.Dialect) -> CompiledStatement[Value]:
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)
    if compiled.post_compile_params or compiled.literal_execute_params:
        raise TypeError("the text depends on the parameters; lists go by `is_one_of`")
    names = compiled.positiontup or ()
    found = [compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect) for name in names]
    return CompiledStatement(
        sql=compiled.string,
        names=names,
        count=len({*names}),
        processors=_by_position(found),
        fixed={name: compiled.binds[name].effective_value for name in names if not compiled.binds[name].required},
        read=_reader(statement, shape, dialect) if shape else None,
    )


def _by_position(found: Iterable[Processor | None]) -> list[tuple[int, Processor]]:
    return [(place, process) for place, process in enumerate(found) if process]


def _reader(statement: Statement, shape: Shape[Value], dialect: sa.Dialect) -> Callable[[Row], Value]:
    columns = statement.exported_columns
    # The collection itself renames the second of two columns of one name, and would hide it from the shape.
    read = shape.reader([str(column.key or name) for name, column in columns.items()])
    found = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
    processors = _by_position(found)
    if not processors:
        return read

    def processed(row: Row) -> Value:
        values = [*row]
        for place, process in processors:
            values[place] = process(values[place])
        return read(values)

    return processed


def lock_rows(query: sa.Select[Any]) -> sa.Select[Any]:
    """The query with its rows locked, so that nobody else changes them until the transaction ends.

    Rows with foreign keys to them can still be written meanwhile: FOR NO KEY UPDATE does not conflict with the lock that
    PostgreSQL takes on the target of a foreign key. Those locks go from child to parent, against our order of locking, and
    would deadlock with FOR UPDATE.
    """
    return query.with_for_update(key_share=True)


def share_rows(query: sa.Select[Any]) -> sa.Select[Any]:
    """The query with its rows locked against changes until the transaction ends. Several transactions can hold this lock."""
    return query.with_for_update(read=True)


def upsert(
    table: sa.Table,
    *,
    keys: Sequence[Any],
    changed: Sequence[Any],
    where: sa.TextClause | None = None,
    returning: Sequence[Any] = (),
) -> Mapping[str, Statement]:
    """An insert that updates the `changed` columns of the row with the same `keys`, if there is one.

    Without `changed` columns it leaves that row as it is.

    `where` is the condition of the unique index on `keys`, if that is a partial one.
    """

    def build(insert: sqlite.Insert | postgresql.Insert) -> Statement:
        if changed:
            values = {column.name: insert.excluded[column.name] for column in changed}
            made = insert.on_conflict_do_update(index_elements=[*keys], index_where=where, set_=values)
        else:
            made = insert.on_conflict_do_nothing(index_elements=[*keys], index_where=where)
        return made.returning(*returning) if returning else made

    return {"sqlite": build(sqlite.insert(table)), "postgresql": build(postgresql.insert(table))}


class _Texts(TypeDecorator[Sequence[str]]):
    """A list of texts as one parameter: an array, or JSON where there are no arrays."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        """The type of the parameter."""
        return dialect.type_descriptor(postgresql.ARRAY(sa.Text) if dialect.name == "postgresql" else sa.Text())

    def process_bind_param(self, value: Sequence[str] | None, dialect: sa.Dialect) -> Any:
        """Bind."""
        return json.dumps(value) if dialect.name == "sqlite" else value


def is_one_of(column: sa.ColumnElement[str], name: str) -> sa.ColumnElement[bool]:
    """The condition that a column of texts is one of a list, which is the parameter `name`.

    The list is one parameter, so the text does not depend on its length. Both databases look each value up in an index.
    Raises TypeError for a column of another type, whose values would have to be converted one by one.
    """
    if not isinstance(column.type, sa.String):
        raise TypeError(f"a list of texts is compared with a column of {column.type!r}")
    return _Among(column, sa.bindparam(name, type_=_Texts()))


class _Among(sa.ColumnElement[bool]):
    inherit_cache = False
    type: Any = sa.types.NULLTYPE  # A Boolean would be compiled to `= 1` for SQLite, which then does not use the index.

    def __init__(self, column: sa.ColumnElement[str], values: sa.BindParameter[Sequence[str]]) -> None:
        self.column = column
        self.values = values


@compiles(_Among, "postgresql")
def _compile_for_postgresql(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    column, values = (compiler.process(part, **options) for part in (element.column, element.values))
    # PostgreSQL uses a partial index `WHERE … IS NOT NULL` only when the query says so too; it does not know the list.
    return f"({column} = ANY ({values}) AND {column} IS NOT NULL)"


@compiles(_Among, "sqlite")
def _compile_for_sqlite(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    column, values = (compiler.process(part, **options) for part in (element.column, element.values))
    # With `IS NOT NULL` SQLite would use that to search the index, and read all of it.
    return f"{column} IN (SELECT value FROM json_each({values}))"  # noqa: S608  no value is in it
