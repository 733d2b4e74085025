"""The command `blobhub-server`: its version, the settings it refuses, the files it makes, and what it logs."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest
from commands import environment, run
from forked import COMMAND


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
