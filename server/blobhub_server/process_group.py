"""Processes beside the server, each with all that it starts: they begin in one step, and end together."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from threading import Thread
from typing import IO, Protocol

from blobhub_server.scarcity import scarcity_errors

READ_BYTES = 64 << 10
MAX_PIPE_BYTES = 1 << 20
"""What a pipe holds at most, unless root has made it larger (pipe(7))."""


class HasFileno(Protocol):
    """A file or a socket."""

    def fileno(self) -> int: ...  # noqa: D102


class Output:
    """The first bytes that a process writes. All others are read as well, so that it never waits to write."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pipe: IO[bytes] | None = None
        self._data = bytearray()

    @property
    def data(self) -> bytes:
        """What is kept so far."""
        return bytes(self._data)

    def follow(self, pipe: IO[bytes]) -> None:
        """Read a pipe, from now until all who write to it have closed it."""
        self._pipe, self._loop = pipe, asyncio.get_running_loop()
        os.set_blocking(pipe.fileno(), False)
        self._loop.add_reader(pipe.fileno(), self._read)

    def close(self) -> None:
        """Read what is in the pipe, and no more, whoever may still have it."""
        for _ in range(MAX_PIPE_BYTES // READ_BYTES):  # Whoever has left the group could write for ever.
            if not self._read():
                break
        self._let_go()

    def _read(self) -> bool:
        """Read once; whether there may be more at once."""
        if self._pipe is None:
            return False
        try:
            chunk = os.read(self._pipe.fileno(), READ_BYTES)
        except BlockingIOError:
            return False
        self._data += chunk[: self._max_bytes - len(self._data)]
        if not chunk:
            self._let_go()
        return bool(chunk)

    def _let_go(self) -> None:
        if self._pipe is not None:
            self._loop.remove_reader(self._pipe.fileno())
            self._pipe.close()
            self._pipe = None


class ProcessGroup:
    """A process that leads a session and a group of its own: when it ends, so do all in that. It belongs to one event loop.

    It begins in one step, so no cancellation comes in between. `asyncio.create_subprocess_exec` has several; when it is
    cancelled in them it kills the process alone, and waits until all that this has started have closed its pipes.
    """

    def __init__(
        self,
        *command: str,
        env: Mapping[str, str],
        cwd: str | None = None,
        stdin: HasFileno,
        stdout: HasFileno | Output | None = None,
        stderr: Output | None = None,
    ) -> None:
        """Without `stdout` what is written there is nobody's; without `stderr` it goes to that of this process.

        Raises OSError where it cannot begin, Overloaded where the system has nothing to give; then there is no process.
        """
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._outputs: list[Output] = []
        with scarcity_errors():
            self._popen = subprocess.Popen(  # noqa: S603  callers name the program themselves
                command,
                env=env,
                cwd=cwd,
                stdin=stdin.fileno(),
                stdout=_target(stdout) if stdout is not None else subprocess.DEVNULL,
                stderr=_target(stderr) if stderr is not None else None,
                bufsize=0,
                start_new_session=True,
            )
            try:
                self._follow(stdout, self._popen.stdout)
                self._follow(stderr, self._popen.stderr)
                Thread(target=self._watch, name=f"process {self.pid}", daemon=True).start()
            except BaseException:  # There are no more threads, for instance.
                self.kill()
                self._popen.wait()
                self._close_outputs()
                raise

    def _follow(self, output: HasFileno | Output | None, pipe: IO[bytes] | None) -> None:
        if isinstance(output, Output) and pipe is not None:
            output.follow(pipe)
            self._outputs.append(output)

    @property
    def pid(self) -> int:
        """The id of the process, and of its group."""
        return self._popen.pid

    def kill(self) -> None:
        """Kill the process and its group, unless it has ended and its group was killed with that."""
        if self._popen.returncode is None:  # or the id may be that of another group by now
            self._kill_group()

    async def wait(self) -> int:
        """Wait for its end; the return code, which is negative for a signal. Its group was killed then."""
        await self._over.wait()
        assert self._popen.returncode is not None
        return self._popen.returncode

    async def end(self) -> None:
        """Kill the process and its group, wait for its end, and complete what is kept of its outputs.

        It does not wait for whoever has left the group and still has a pipe.
        """
        self.kill()
        await self._over.wait()
        self._close_outputs()

    def _close_outputs(self) -> None:
        for output in self._outputs:
            output.close()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _watch(self) -> None:
        """Wait for its end, in a thread as asyncio does: uvloop hears of no process but those it has begun itself."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self._kill_group()  # before anybody asks for its return code: until then no other process gets its id
        self._popen.wait()
        with suppress(RuntimeError):  # The loop is closed.
            self._loop.call_soon_threadsafe(self._over.set)


def _target(output: HasFileno | Output) -> int:
    return subprocess.PIPE if isinstance(output, Output) else output.fileno()
