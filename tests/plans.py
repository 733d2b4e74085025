"""What a running server asks its database, and how the database goes about it."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from blobhub_server.db.engine import Transaction
from blobhub_server.db.postgresql import PostgresqlTransaction
from blobhub_server.db.sqlite import SqliteLongRead, SqliteTransaction
from sqlalchemy import event
from sqlalchemy.sql import visitors

_INDEX = r"USING (?:COVERING )?(?:INDEX )?(PRIMARY KEY|(?<=INDEX )\w+)"
"""A table without row ids is the index of its primary key."""


@dataclass(frozen=True)
class Statement:
    """A statement as it went to the driver.

    `counts` says that it counts or skips rows: `LIMIT ? OFFSET ?` with a zero, as there is on SQLite, does not.
    """

    sql: str
    parameters: tuple[Any, ...]
    counts: bool
    task: asyncio.Task[Any] | None


@dataclass(frozen=True)
class Work:
    """How a statement was run: the indexes it went by, whether it sorted, what it read without an index, and the effort."""

    indexes: frozenset[str]
    sorts: bool
    scanned: frozenset[str]
    effort: int


@contextmanager
def asked(*begins: str) -> Iterator[list[Statement]]:
    """The queries that every database of this process is asked meanwhile: those that begin so, with SELECT unless told."""
    begins = begins or ("SELECT",)
    found: list[Statement] = []

    def note(_connection: Any, _cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
        if not many and sql.startswith(begins):
            parts = list(visitors.iterate(context.compiled.statement))
            skips = any(getattr(part, "_offset_clause", None) is not None for part in parts)
            counts = any(isinstance(part, sa.Function) and part.name == "count" for part in parts)
            found.append(
                Statement(sql=sql, parameters=tuple(parameters), counts=skips or counts, task=asyncio.current_task())
            )

    event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        with ExitStack() as stack:
            for transaction in (SqliteTransaction, SqliteLongRead, PostgresqlTransaction):
                stack.enter_context(_noting_prepared(transaction, found))
            yield found
    finally:
        event.remove(sa.Engine, "before_cursor_execute", note)


@contextmanager
def _noting_prepared(transaction: type[Transaction], found: list[Statement]) -> Iterator[None]:
    """Note the queries that Core has compiled before; it does not see them run."""
    fetch = transaction._fetch

    async def noting(tx: Transaction, sql: str, values: Sequence[Any]) -> Any:
        if sql.startswith("SELECT"):
            task = asyncio.current_task()
            found.append(Statement(sql=sql, parameters=tuple(values), counts="count(" in sql, task=task))
        return await fetch(tx, sql, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transaction, "_fetch", noting)
        yield


class Sqlite:
    """Counts the steps of SQLite's virtual machine."""

    little = 8_000
    """Of a page of fifty, with some rows that are passed over. A walk of twenty thousand takes ten times that, and more."""

    depth = 3
    """How much more it takes to find a row in an index that is much larger: less than another row takes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def by_language(self, _: Statement) -> list[str]:
        """None: without a word to the contrary SQLite orders text by its bytes."""
        return []

    async def work(self, statement: Statement) -> Work:
        """Run a statement once more, counting."""
        rows = self._connection.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.parameters)
        plan = [detail for *_, detail in rows]
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        self._connection.set_progress_handler(step, 1)
        self._connection.execute(statement.sql, statement.parameters).fetchall()
        self._connection.set_progress_handler(None, 1)
        return Work(
            indexes=frozenset(found for line in plan for found in re.findall(_INDEX, line)),
            sorts=any("TEMP B-TREE" in line for line in plan),
            scanned=frozenset(line for line in plan if re.fullmatch(r"SCAN (?!anon_)\w+", line)),
            effort=steps,
        )


class Postgresql:
    """Counts the pages that PostgreSQL looks at."""

    little = 600
    depth = 4

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def by_language(self, statement: Statement) -> list[str]:
        """The columns that a statement orders by as some language has it, and so otherwise than SQLite does.

        Ids are ordered the same in every language: they are of one length, with their hyphens in the same places.
        """
        query = """SELECT collation_name FROM information_schema.columns WHERE table_name = $1 AND column_name = $2
                   AND data_type = 'character varying' AND character_maximum_length <> 36"""
        columns = re.findall(r'(\w+)\."?(\w+)', " ".join(re.findall(r"ORDER BY (.+?)\n", statement.sql)))
        assert columns
        found = {f"{table}.{column}": await self._connection.fetch(query, table, column) for table, column in columns}
        return [name for name, collations in found.items() if collations and collations[0][0] != "C"]

    async def work(self, statement: Statement) -> Work:
        """Run a statement once more, counting."""
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.sql}"
        ((told,),) = await self._connection.fetch(explain, *statement.parameters)
        nodes = list(_nodes(json.loads(told)[0]["Plan"]))
        return Work(
            indexes=frozenset(node["Index Name"] for node in nodes if "Index Name" in node),
            sorts=any(node["Node Type"] in ("Sort", "Incremental Sort") for node in nodes),
            scanned=frozenset(node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"),
            effort=nodes[0]["Shared Hit Blocks"] + nodes[0]["Shared Read Blocks"],
        )


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for part in node.get("Plans", ()):
        yield from _nodes(part)


@asynccontextmanager
async def database(url: str) -> AsyncIterator[Sqlite | Postgresql]:
    """A connection of our own to a server's database."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(f"file:{url.removeprefix('sqlite:///')}?mode=ro", uri=True)) as file:
            yield Sqlite(file)
    else:
        connection = await asyncpg.connect(url)
        try:
            yield Postgresql(connection)
        finally:
            await connection.close()
