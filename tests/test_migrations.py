"""Migrations: forward, on both databases, and safe when they are interrupted or meet another server's."""

from __future__ import annotations

import asyncio
import importlib
import random
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path

import blobhub_server.app  # noqa: F401  every module of the platform that declares tables
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from blobhub_server.blobtypes.access import Role
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.migrations import HERE, PLATFORM, Chain, config, differences, migrate
from blobhub_server.db.postgresql import make_engine
from blobhub_server.db.schema import Choice, Duration, Json, Time, metadata
from blobhub_server.platform import store
from scale import scaled
from sqlalchemy.dialects import postgresql
from stranger_notes import NotesType

TYPES = BlobTypes.load()
CHAINS = TYPES.chains()
EVERY = (PLATFORM, *CHAINS)


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


async def test_migrations_match_the_tables(empty_database_url):
    await migrate(empty_database_url, CHAINS)
    assert await differing(empty_database_url) == []


async def test_servers_that_start_together_migrate_once(empty_database_url):
    if empty_database_url.startswith("sqlite"):
        # The file lock lets only one server come this far; twice in a row is what can happen.
        await migrate(empty_database_url, CHAINS)
        await migrate(empty_database_url, CHAINS)
    else:
        await asyncio.gather(*(migrate(empty_database_url, CHAINS) for _ in range(4)))
    assert await differing(empty_database_url) == []


async def test_a_migration_killed_at_any_point_is_done_by_the_next_start(tmp_path):
    dice = random.Random(7)
    for round_ in range(scaled(6, least=2)):
        url = f"sqlite:///{tmp_path / f'{round_}.db'}"
        code = f"""
import asyncio, alembic.command, blobhub_server.app
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.migrations import migrate
chains = BlobTypes.load().chains()
print("ready", flush=True)
asyncio.run(migrate({url!r}, chains))
"""
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as server:
            server.stdout.readline()
            await asyncio.sleep(0.02 + dice.random() * 0.15)
            server.kill()
        await migrate(url, CHAINS)
        assert await differing(url) == []


@pytest.mark.parametrize("chain", EVERY, ids=lambda chain: chain.name)
async def test_a_migration_that_fails_leaves_the_database_as_it_was(empty_database_url, chain):
    """The version row is written last: refusing it is failing as late as can be in a chain."""

    def late(_connection, _cursor, statement, *_):
        if statement.lstrip().startswith(f"INSERT INTO {chain.version_table} "):
            raise ZeroDivisionError

    sa.event.listen(sa.Engine, "before_cursor_execute", late)
    try:
        with pytest.raises(ZeroDivisionError):
            await migrate(empty_database_url, CHAINS)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", late)
    async with engine_of(empty_database_url) as run:
        assert await run(lambda sync: sa.inspect(sync).get_table_names()) == []
    await migrate(empty_database_url, CHAINS)
    assert await differing(empty_database_url) == []


@pytest.mark.parametrize("chain", EVERY, ids=lambda chain: chain.name)
def test_the_newest_revision_is_the_one_that_alembic_finds(chain: Chain) -> None:
    assert ScriptDirectory(str(HERE), version_locations=[str(chain.folder)]).get_current_head() == chain.head


def test_every_table_is_the_platforms_or_one_types() -> None:
    of_types = [table.name for item in TYPES.all() for table in item.type.tables]
    assert len(of_types) == len(set(of_types))
    modules = [getattr(store, name) for name in store.__all__]
    of_platform = {item.name for module in modules for item in vars(module).values() if isinstance(item, sa.Table)}
    assert of_platform | set(of_types) == metadata.tables.keys()
    assert of_platform & set(of_types) == set()


async def test_nothing_slow_is_imported_when_the_database_is_up_to_date(tmp_path):
    url = f"sqlite:///{tmp_path / 'blobhub.db'}"
    await migrate(url, CHAINS)
    code = f"""
import asyncio, sys
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.migrations import migrate
asyncio.run(migrate({url!r}, BlobTypes.load().chains()))
sys.exit("alembic" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


RUN = """
INSERT INTO organizations (id, alias, description, visibility, create_time, update_time, etag, blob_count)
    VALUES ('o', 'acme', '', 'private', 1, 1, 'e', 1);
INSERT INTO blobs (id, organization_id, alias, type, visibility, description, default_revision_id, create_time, update_time,
    etag, last_sequence, bytes) VALUES ('b', 'o', 'notes', 'stranger.notes', 'private', '', 'r', 1, 1, 'e', 0, 0);
INSERT INTO note_runs (id, blob_id, note, execution_id, create_time) VALUES ('n', 'b', 'milk', 'x', 1);
"""


async def test_a_types_chain_brings_its_rows_along(empty_database_url):
    (notes,) = (chain for chain in CHAINS if chain.name == "stranger.notes")

    def before(connection: sa.Connection) -> None:
        command.upgrade(config(connection, PLATFORM), "head")
        command.upgrade(config(connection, notes), "0001")
        for statement in RUN.split(";\n")[:-1]:
            connection.execute(sa.text(statement))
        connection.commit()

    async with engine_of(empty_database_url) as run:
        await run(before)
    await migrate(empty_database_url, CHAINS)
    async with engine_of(empty_database_url) as run:
        found = await run(
            lambda connection: connection.execute(sa.text("SELECT id, organization_id, revision_id FROM note_runs")).all()
        )
    assert [tuple(row) for row in found] == [("n", "o", None)]
    assert await differing(empty_database_url) == []


async def test_names_are_in_the_order_of_code_points_in_every_language(fresh_postgres):
    """The comparison of tables does not look at collations, and SQLite has none to look at."""
    url = await fresh_postgres()
    expected = {
        (table.name, column.name)
        for table in metadata.tables.values()
        for column in table.columns
        if getattr(column.type.dialect_impl(postgresql.dialect()), "collation", None) == "C"
    }
    query = "SELECT table_name, column_name FROM information_schema.columns WHERE collation_name = 'C'"
    async with engine_of(url) as run:
        found = await run(lambda connection: connection.execute(sa.text(query)).fetchall())
    assert {tuple(row) for row in found if row[0] in metadata.tables} == expected
    assert ("blobs", "alias") in expected


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write the stranger's first migration as if it had none yet, and return it."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "tools"))
    make_migration = importlib.import_module("make_migration")
    monkeypatch.setattr(NotesType, "migrations", tmp_path / "migrations")

    def write() -> Path:
        make_migration.main("runs of notes", "stranger.notes")
        (made,) = (tmp_path / "migrations").glob("*.py")
        return made

    return write


def test_a_migration_is_written_for_one_type_from_its_tables(written):
    """What is not its own is left alone."""
    made = written()
    assert made.name == "0001_runs_of_notes.py"
    calls = re.findall(r"op\.(?!f\()(\w+)\(\s*[\"'](\w+)", made.read_text())
    assert calls == [
        ("create_table", "note_runs"),
        ("create_index", "ix_note_runs_blob_id"),
        ("create_index", "ix_note_runs_revision_id"),
    ]


class Size(StrEnum):
    SMALL = "small"


def test_a_migration_says_of_our_own_types_what_they_are_in_the_database(written, monkeypatch):
    """So that it does not change when they do."""
    kinds = {
        "a": (Time(), "BigInteger()"),
        "b": (Duration(), "BigInteger()"),
        "c": (Choice(Size, sa.String(16)), "String(length=16)"),
        "d": (Choice(Role, sa.SmallInteger()), "SmallInteger()"),
        "e": (Json(), "Text()"),
    }
    table = sa.Table("of_a_test", metadata, *(sa.Column(name, kind) for name, (kind, _) in kinds.items()))
    monkeypatch.setattr(NotesType, "tables", (table,))
    try:
        text = written().read_text()
    finally:
        metadata.remove(table)
    assert "blobhub_server" not in text
    assert dict(re.findall(r"sa\.Column\([\"'](\w)[\"'], sa\.(.*?), nullable", text)) == {
        name: kept for name, (_, kept) in kinds.items()
    }
