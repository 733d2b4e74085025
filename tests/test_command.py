"""The command `blobhub-server`: its version, the settings it refuses, the files it makes, and what it logs."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from calling import ask
from commands import environment, refused, run
from forked import COMMAND
from marked import planted
from served import connected, served

KEY = "Administrator's key, shown once: "


def test_it_tells_its_version() -> None:
    done = subprocess.run([COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"blobhub-server \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "BLOBHUB_LISEN",
            "127.0.0.1:0",
            "BLOBHUB_LISEN is no setting of the server or its blob types; did you mean BLOBHUB_LISTEN?",
        ),
        ("BLOBHUB_LEASE_SECOND", "3", "did you mean BLOBHUB_LEASE_SECONDS?"),
        ("BLOBHUB_XYZZY", "3", "docs/settings.md lists all there are"),
        ("BLOBHUB_LISTEN", "7443", "BLOBHUB_LISTEN: expected an address and a port, such as 127.0.0.1:7443"),
        ("BLOBHUB_LISTEN", "127.0.0.1", "BLOBHUB_LISTEN: expected an address and a port"),
        ("BLOBHUB_LISTEN", "127.0.0.1:70000", "BLOBHUB_LISTEN: expected an address and a port"),
        ("BLOBHUB_HTTP_URL", "blobs.example.org", "BLOBHUB_HTTP_URL: expected a URL such as https://"),
        ("BLOBHUB_OBJECTS_URL", "file:///dev/null/objects", "/dev/null"),
        ("BLOBHUB_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none", "the database cannot be reached"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_a_setting_that_cannot_be_meant_is_told_in_one_line(
    tmp_path: Path, command: str, name: str, value: str, said: str
) -> None:
    done = run(command, tmp_path, **{name: value})
    assert done.returncode == 1
    lines = [line for line in (done.stdout + done.stderr).splitlines() if said in line]
    assert lines
    assert len(lines) == 1 or command == "doctor", "the doctor says it at each check that it keeps from being made"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kibibytes", [0, 1, 40])
def test_a_start_that_has_no_room_for_its_files_says_so_in_one_line(tmp_path: Path, kibibytes: int) -> None:
    assert run("migrate", tmp_path).returncode == 0
    limited = ["sh", "-c", f'ulimit -f {2 * kibibytes}; exec "$0" serve', COMMAND]
    done = subprocess.run(limited, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=60)
    refused(done, "")


def test_the_administrators_key_is_not_made_where_it_cannot_be_shown(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, "serve"], env=environment(tmp_path), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    refused(done, "the administrator's key cannot be printed on standard output, and was not made")
    with started(tmp_path) as server:
        assert server.stdout is not None
        assert KEY in server.stdout.readline()
    with Path("/dev/full").open("w") as full, started(tmp_path, stdout=full) as server:
        assert server.stderr is not None
        while "serving" not in server.stderr.readline():
            assert server.poll() is None, "it has no key to show, so it needs no output"


async def test_a_first_start_that_fails_has_shown_the_administrators_key(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run("serve", tmp_path, BLOBHUB_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}")
    refused(done, "the port is taken")
    key = planted(done.stdout.partition(KEY)[2].strip(), "an administrator's key")
    async with served(tmp_path) as server, connected(server.address, key) as api:
        assert (await ask(api, "GetCaller")).caller.user_id
        assert not server.admin_key


@contextmanager
def started(data_dir: Path, **given: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a server, whose output is read in the block; then stop it."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | given
    with subprocess.Popen([COMMAND, "serve"], env=environment(data_dir), text=True, **pipes) as server:
        yield server
        server.terminate()
        server.communicate(timeout=60)


def test_a_server_logs_its_life_and_keeps_what_it_makes_to_its_user(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with subprocess.Popen(
        [COMMAND, "serve"], env=environment(data_dir), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        while "serves on" not in server.stdout.readline():
            assert server.poll() is None
        server.send_signal(signal.SIGTERM)
        _, logged = server.communicate(timeout=60)
    assert server.returncode == 0
    life = [line.split("]")[1].split()[0] for line in logged.splitlines()]
    assert life == ["starting", "serving", "draining", "stopped"]
    made = [data_dir, *data_dir.rglob("*")]
    assert len(made) > 3
    for path in made:
        assert path.stat().st_mode & 0o077 == 0, path
