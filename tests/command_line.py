"""`blobhub`, the command line, run as people and programs do, with profiles of its own, against a server of the test."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
from served import Served

SCRIPT = str(Path(sys.executable).parent / "blobhub")
ESCAPE = "\x1b"


class CommandLine:
    """The script, in an environment that has nothing but what it is given."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BLOBHUB_", "XDG_"))}
        self.environment = kept | {"XDG_CONFIG_HOME": str(folder), "TERM": "xterm-256color"} | environment

    async def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever that is; what it prints goes into pipes, so no escape code may be in it."""
        done = await asyncio.to_thread(forked.run, *arguments, env=self.environment, script=SCRIPT, stdin=stdin)
        assert ESCAPE not in done.stdout + done.stderr
        return done

    async def __call__(self, *arguments: str, stdin: str = "") -> str:
        """What a command prints that does its work."""
        done = await self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def json(self, *arguments: str, stdin: str = "") -> Any:
        """The one JSON object that a command prints."""
        (found,) = await self.jsons(*arguments, stdin=stdin)
        return found

    async def jsons(self, *arguments: str, stdin: str = "") -> list[Any]:
        """The JSON objects that a command prints."""
        return [json.loads(line) for line in (await self(*arguments, "--json", stdin=stdin)).splitlines()]

    async def refused(self, code: int, *arguments: str, stdin: str = "") -> str:
        """What a command says that ends with an exit code."""
        done = await self.run(*arguments, stdin=stdin)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def config_home() -> Iterator[Path]:
    """A folder for profiles, gone after the test: the keys in them are no secrets that got out."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def blobhub(server: Served, config_home: Path) -> CommandLine:
    """The command line with the administrator's key."""
    return CommandLine(config_home, BLOBHUB_ADDRESS=server.address, BLOBHUB_API_KEY=server.admin_key)
