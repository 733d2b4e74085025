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
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

from waiting import DEADLINE_SECONDS

COMMAND = str(Path(sys.executable).parent / "blobhub-server")

STDERR = 2
"""Where this process writes its errors; `sys.stderr` may be pytest's, and no file."""

IMPORTED = [
    "alembic.command",
    "blobhub_cli.app",
    "blobhub_server.app",
    "blobhub_server.db.postgresql",
    "blobhub_server.db.sqlite",
    "blobhub_server.scheduler.blob_type",
    "blobhub_server.workflow.blob_type",
    "blobhub_server.workflow.components.flow",
    "blobhub_server.workflow.components.logic",
    "blobhub_server.workflow.components.waiting",
    "rich.live",
    "rich.progress",
    "stranger_notes",
    "typer.rich_utils",
    "uvloop",
]

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(IMPORTED)


class _Passed:
    """An open file that comes with the process, which has it from its first moment on.

    A `DupFd` that is made before the process is kept open here until the process asks for it. Where that dies before, what
    it was to print never ends, and whoever reads it waits for ever. One made while the process is packed is sent along.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any]]:
        return _same, (DupFd(self._descriptor),)


class Forked:
    """A running script; what it prints comes from `stdout`. It has those methods of `subprocess.Popen` that tests use.

    `command` is the script and its arguments.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], stderr: IO[Any] | None = None, stdin: IO[Any] | None = None
    ) -> None:
        read, write = os.pipe()
        self.stdout = os.fdopen(read)
        files = {1: _Passed(write), 2: _Passed(stderr.fileno() if stderr else STDERR)} | (
            {0: _Passed(stdin.fileno())} if stdin else {}
        )
        self._command = command
        self._process = _forking.Process(target=_run, args=(command, dict(env), files))
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


def run(*arguments: str, env: Mapping[str, str], script: str = COMMAND, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of `blobhub-server`, or another script, that ends by itself, to its end. Raises TimeoutExpired."""
    with tempfile.TemporaryFile("w+") as stderr, tempfile.TemporaryFile("w+") as given:
        given.write(stdin)
        given.seek(0)
        forked = Forked([script, *arguments], env, stderr=stderr, stdin=given)
        with forked.stdout:
            printed = forked.stdout.read()
        code = forked.wait(DEADLINE_SECONDS)
        stderr.seek(0)
        return subprocess.CompletedProcess([script, *arguments], code, printed, stderr.read())


def _same(file: Any) -> Any:
    return file


def _run(command: Sequence[str], env: Mapping[str, str], files: Mapping[int, Any]) -> None:
    for descriptor, file in files.items():
        copied = file.detach()
        os.dup2(copied, descriptor)
        os.close(copied)
    if 0 in files:
        sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing has closed the one there was
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = [*command]
    runpy.run_path(command[0], run_name="__main__")
