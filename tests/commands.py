"""The commands of `blobhub-server`, run as an operator does, each with settings of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import forked


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """The environment of a command: what there is, without settings from elsewhere, a free port, and these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BLOBHUB_")}
    ports = {"BLOBHUB_LISTEN": "127.0.0.1:0", "BLOBHUB_HTTP_LISTEN": "127.0.0.1:0"}
    return kept | {"BLOBHUB_DATA_DIR": str(data_dir)} | ports | settings


def run(command: str, data_dir: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command, which is expected to end by itself."""
    return forked.run(command, env=environment(data_dir, **settings))


def refused(done: subprocess.CompletedProcess[str], said: str) -> None:
    """See that a command was refused in one line, which says something."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("blobhub-server: ")
    assert said in last
