"""Processes of `blobhub-server` that begin with everything imported: importing takes longer than the rest of a start.

A process that has imported the server forks them (multiprocessing's fork server). What they run is the command itself, or
another script that serves.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

from waiting import DEADLINE_SECONDS

COMMAND = str(Path(sys.executable).parent / "blobhub-server")

STDERR = 2
"""Where this process writes its errors; `sys.stderr` may be pytest's, and no file."""

IMPORTED = [
    "alembic.command",
    "blobhub_server.app",
    "blobhub_server.db.postgresql",
    "blobhub_server.db.sqlite",
    "blobhub_server.scheduler.blob_type",
    "blobhub_server.workflow.blob_type",
    "blobhub_server.workflow.components.flow",
    "blobhub_server.workflow.components.logic",
    "stranger_notes",
    "typer",
    "uvloop",
]

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(IMPORTED)


class Forked:
    """A running script; what it prints comes from `stdout`. It has those methods of `subprocess.Popen` that tests use.

    `command` is the script and its arguments.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], stderr: IO[Any] | None = None) -> None:
        read, write = os.pipe()
        self.stdout = os.fdopen(read)
        outputs = [DupFd(write), DupFd(stderr.fileno() if stderr else STDERR)]
        self._command = command
        self._process = _forking.Process(target=_run, args=(command, dict(env), outputs))
        self._process.start()
        os.close(write)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """How it has ended, if it has."""
        return self._process.exitcode

    def send_signal(self, how: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, how)

    def wait(self, timeout: float | None = None) -> int:
        """How it ends. Raises TimeoutExpired."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self._command, timeout or 0)
        return code


def run(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command of `blobhub-server` that ends by itself, to its end. Raises TimeoutExpired."""
    with tempfile.TemporaryFile("w+") as stderr:
        forked = Forked([COMMAND, *arguments], env, stderr=stderr)
        with forked.stdout:
            printed = forked.stdout.read()
        code = forked.wait(DEADLINE_SECONDS)
        stderr.seek(0)
        return subprocess.CompletedProcess([COMMAND, *arguments], code, printed, stderr.read())


def _run(command: Sequence[str], env: Mapping[str, str], outputs: Sequence[Any]) -> None:
    for descriptor, output in enumerate(outputs, start=1):
        copied = output.detach()
        os.dup2(copied, descriptor)
        os.close(copied)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = [*command]
    runpy.run_path(command[0], run_name="__main__")
