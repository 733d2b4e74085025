"""A server keeps file descriptors for itself, however many connections there are."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import flows
from blobhub_server.platform.rules.api_key import make_secret
from calling import ask
from commands import environment, refused
from forked import COMMAND
from marked import planted
from runs import run
from served import connected
from waiting import DEADLINE_SECONDS, until

SILENT = 150


def limited(descriptors: int) -> list[str]:
    """A command that serves with so many file descriptors."""
    return ["sh", "-c", f'ulimit -n {descriptors}; exec "$0" serve', COMMAND]


@asynccontextmanager
async def serving(tmp_path: Path, descriptors: int, **settings: str) -> AsyncIterator[tuple[str, Path]]:
    """Run a server with so many file descriptors; its address, and the file of its log."""
    log = tmp_path / "log"
    with log.open("w") as stderr:
        server = subprocess.Popen(
            limited(descriptors), env=environment(tmp_path / "data", **settings), stdout=stderr, stderr=stderr
        )
        try:
            (address,) = await until(lambda: re.findall(r"BlobHub serves on (\S+)", log.read_text()))
            yield address, log
        finally:
            server.kill()
            server.wait(DEADLINE_SECONDS)


async def test_silent_connections_leave_a_server_descriptors_of_its_own(tmp_path: Path) -> None:
    key = planted(make_secret(os.urandom), "an administrator's key that was given")
    settings = {"BLOBHUB_ADMIN_KEY": key, "BLOBHUB_HANDSHAKE_SECONDS": "600"}
    async with serving(tmp_path, 200, **settings) as (address, log), connected(address, key) as api:
        session_id = await api.session(flows.steps())
        host, _, port = address.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(SILENT)]
        try:
            for number in range(10):
                await api.put(flows.code(f"set_data_output('result', {number})"))
                assert (await run(api, session_id)).result.number_value == number
                await ask(api, "ListExecutions", blob="acme/pipeline")
        finally:
            for _, writer in silent:
                writer.close()
        told = log.read_text()
        assert "few_file_descriptors" in told
        assert "storage_unusable" not in told


def test_a_server_that_may_open_too_few_files_does_not_start(tmp_path: Path) -> None:
    done = subprocess.run(
        limited(100), env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS
    )
    refused(done, "a process may have 100 files open here, and a server needs 160")
