"""Migrations: forward, on both databases, and safe when they are interrupted or meet another server's."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from contextlib import asynccontextmanager

import blobhub_server.app  # noqa: F401  every module that declares tables
import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from blobhub_server.db.migrations import HEAD, HERE, differences, migrate
from blobhub_server.db.postgresql import make_engine


@asynccontextmanager
async def engine_of(url: str):
    """An engine of the database's own kind; `run(function)` calls a function with a connection."""
    if url.startswith("sqlite"):
        engine = sa.create_engine(url)

        async def run(function):
            with engine.connect() as connection:
                return function(connection)

        yield run
        engine.dispose()
    else:
        remote = make_engine(sa.make_url(url))

        async def run(function):
            async with remote.connect() as connection:
                return await connection.run_sync(function)

        yield run
        await remote.dispose()


async def differing(url: str) -> list:
    async with engine_of(url) as run:
        return await run(differences)


async def test_migrations_match_the_tables(database_url):
    await migrate(database_url)
    assert await differing(database_url) == []


async def test_servers_that_start_together_migrate_once(postgres, database_url):
    if database_url.startswith("sqlite"):
        # The file lock lets only one server come this far; twice in a row is what can happen.
        await migrate(database_url)
        await migrate(database_url)
    else:
        await asyncio.gather(*(migrate(database_url) for _ in range(4)))
    assert await differing(database_url) == []


async def test_a_migration_killed_at_any_point_is_done_by_the_next_start(tmp_path):
    dice = random.Random(7)
    for round_ in range(6):
        url = f"sqlite:///{tmp_path / f'{round_}.db'}"
        code = f"""
import asyncio, alembic.command, blobhub_server.app
from blobhub_server.db.migrations import migrate
print("ready", flush=True)
asyncio.run(migrate({url!r}))
"""
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as server:
            server.stdout.readline()
            await asyncio.sleep(0.02 + dice.random() * 0.15)
            server.kill()
        await migrate(url)
        assert await differing(url) == []


async def test_a_migration_that_fails_leaves_the_database_as_it_was(database_url, monkeypatch):
    """The version row is written last: refusing it is failing as late as can be."""

    def late(_connection, _cursor, statement, *_):
        if statement.lstrip().upper().startswith("INSERT INTO ALEMBIC_VERSION"):
            raise ZeroDivisionError

    sa.event.listen(sa.Engine, "before_cursor_execute", late)
    try:
        with pytest.raises(ZeroDivisionError):
            await migrate(database_url)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", late)
    async with engine_of(database_url) as run:
        assert await run(lambda sync: sa.inspect(sync).get_table_names()) == []
    await migrate(database_url)
    assert await differing(database_url) == []


def test_the_newest_revision_is_the_one_that_alembic_finds():
    assert ScriptDirectory(str(HERE)).get_current_head() == HEAD


async def test_nothing_slow_is_imported_when_the_database_is_up_to_date(tmp_path):
    url = f"sqlite:///{tmp_path / 'blobhub.db'}"
    await migrate(url)
    code = f"""
import asyncio, sys
from blobhub_server.db.migrations import migrate
asyncio.run(migrate({url!r}))
sys.exit("alembic" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
