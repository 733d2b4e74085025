"""A server that cannot start says why, in one sentence that names whoever has to do with it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from blobhub_server.app import running
from blobhub_server.blobtypes.contract import BlobType, Limit, Opened, Service
from blobhub_server.blobtypes.distinct import DuplicateName
from blobhub_server.blobtypes.registry import BlobTypes, InstalledType
from blobhub_server.config import Settings
from blobhub_server.db.migrations import PLATFORM, NewerDatabase
from commands import refused, run
from databases import execute
from served import served


class Kind(BlobType):
    """A type that brings what it is told to."""

    title = description = "A test's"

    def __init__(self, name: str, opened: Opened) -> None:
        self.name, self.opened = name, opened

    @asynccontextmanager
    async def open(self, host, given) -> AsyncIterator[Opened]:
        yield self.opened

    async def validate(self, content):
        return []


async def nothing(*_: object) -> int:
    return 0


def with_service(name: str) -> Opened:
    return Opened(services=[Service(name, object())])


def with_kind(name: str) -> Opened:
    return Opened(services=(), locators={name: nothing})


def with_limit(name: str) -> Opened:
    return Opened(services=(), limits=[Limit(name=name, description="Things", default=1, held=nothing)])


@pytest.mark.parametrize(
    ("brings", "name", "what"),
    [
        (with_service, "blobhub.v1.BlobService", "gRPC service"),
        (with_kind, "blob", "kind of resource"),
        (with_limit, "blob.bytes", "limit"),
    ],
)
async def test_what_two_parts_of_the_server_bring_stops_the_start_and_both_are_named(
    tmp_path: Path, brings, name: str, what: str
) -> None:
    settings = Settings(data_dir=tmp_path, listen="127.0.0.1:0")
    for common, owners, others in (
        (name, "the platform and a.a", [Kind("a.a", brings(name))]),
        ("own.name", "a.a and b.b", [Kind(owner, brings("own.name")) for owner in ("b.b", "a.a")]),
    ):
        types = BlobTypes(
            {kind.name: InstalledType(type=kind, distribution="a test", settings=kind.settings()) for kind in others}
        )
        with pytest.raises(DuplicateName, match=rf"{common} is a {what} of both {owners}; remove one"):
            async with running(settings, types):
                pass


ERRORS = """
from blobhub.v1.workflow_error_pb2 import WorkflowErrorReason
from blobhub_server.blobtypes.contract import BlobType
from blobhub_server.errors import BlobHubError, NotFound

class Wrong({base}):
    {fields}

class Sound(NotFound):
    pass

class Bad(BlobType):
    name, title, description = "bad.errors", "Bad", "Has an error that is none."
    reasons = WorkflowErrorReason.DESCRIPTOR

    def open(self, host, given):
        raise NotImplementedError

    async def validate(self, content):
        return []
"""
"""A blob type, the reasons of which are declared as the workflow's, and an error of it."""


@pytest.mark.parametrize(
    ("base", "fields", "said"),
    [
        ("BlobHubError", "domain, code, reason = 'bad.errors', 'TEAPOT', 'EXECUTION_ENDED'", "has the code TEAPOT"),
        ("BlobHubError", "domain, code, reason = 'bad.errors', 'OK', 'EXECUTION_ENDED'", "has the code OK"),
        ("NotFound", "code = 'mro'", "has the code mro"),
        (
            "BlobHubError",
            "domain, code, reason = 'bad.errors', 'ABORTED', 'TEAPOT'",
            "has the reason TEAPOT, which bad.errors",
        ),
        ("BlobHubError", "code, reason = 'ABORTED', 'EXECUTION_ENDED'", "has the reason EXECUTION_ENDED, which blobhub"),
        ("NotFound", "domain = 'bad.errors'", "has the reason NOT_FOUND, which bad.errors does not declare"),
        ("BlobHubError", "domain, code, reason = 'bad', 'ABORTED', 'ENDED'", "has the domain bad, which is no installed"),
    ],
)
async def test_an_error_that_would_be_answered_as_another_stops_the_start_and_is_named(
    tmp_path: Path, base: str, fields: str, said: str
) -> None:
    (tmp_path / "bad.py").write_text(ERRORS.format(base=base, fields=fields))
    info = tmp_path / "bad-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[blobhub.blob_types]\nbad.errors = bad:Bad\n")
    done = await asyncio.to_thread(run, "migrate", tmp_path / "data", PYTHONPATH=str(tmp_path))
    refused(done, f"the error bad.Wrong {said}")


@pytest.mark.parametrize("chain", [PLATFORM, *BlobTypes.load().chains()], ids=lambda chain: chain.name)
async def test_a_database_of_a_newer_program_stops_the_start_and_the_chain_is_named(
    tmp_path: Path, database_url: str, chain
) -> None:
    await execute(database_url, f"UPDATE {chain.version_table} SET version_num = '9999'")
    said = f"{chain.name} is at migration 9999, made by a newer program; this one knows {chain.head}"
    with pytest.raises(NewerDatabase, match=said):
        async with served(tmp_path / "data", database_url):
            pass
    done = await asyncio.to_thread(run, "migrate", tmp_path, BLOBHUB_DATABASE_URL=database_url)
    refused(done, said)


@pytest.mark.parametrize("command", ["serve", "migrate"])
async def test_a_database_server_that_cannot_be_reached_is_told_without_the_password(
    tmp_path: Path, postgres, command: str
) -> None:
    there = postgres.get_uri(database="none_of_that_name")
    for url, said in (
        ("postgresql://kim:swordfish@127.0.0.1:1/x", "the database cannot be reached: [Errno 111]"),
        (there, 'the database cannot be reached: database "none_of_that_name" does not exist'),
    ):
        done = await asyncio.to_thread(run, command, tmp_path, BLOBHUB_DATABASE_URL=url)
        refused(done, said)
        assert "swordfish" not in done.stderr
        assert "BLOBHUB_DATABASE_URL" in done.stderr


@pytest.mark.parametrize("command", ["serve", "migrate"])
async def test_a_file_that_is_no_database_and_a_folder_that_cannot_be_made_are_told(tmp_path: Path, command: str) -> None:
    (tmp_path / "blobhub.db").write_bytes(b"swordfish" * 1000)
    refused(await asyncio.to_thread(run, command, tmp_path), "the database cannot be reached: file is not a database")
    (tmp_path / "file").write_text("a file")
    refused(
        await asyncio.to_thread(run, command, tmp_path / "file"), "the database cannot be reached: [Errno 17] File exists"
    )


async def test_a_migration_beside_a_server_on_the_same_sqlite_file_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path):
        refused(await asyncio.to_thread(run, "migrate", tmp_path), f"another process (pid {os.getpid()})")
    assert (await asyncio.to_thread(run, "migrate", tmp_path)).returncode == 0
