"""A command in a pseudo-terminal, and what a person sees there: the screen, as a terminal emulator draws it."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from fcntl import ioctl

import pyte
from waiting import DEADLINE_SECONDS, until

COLUMNS, ROWS = 100, 40
IN_TERMINAL = """
import fcntl, os, signal, sys, termios
os.setsid()
signal.signal(signal.SIGINT, signal.default_int_handler)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal that of the process, so that keys become signals, also where the tests themselves ignore that one, as
what a shell runs beside itself does."""
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ|\d\d:\d\d:\d\d\.\d{3}")
DURATION = re.compile(r"\d+\.\d (ms|s)\b")


class Terminal:
    """A screen, and the process that writes on it."""

    def __init__(self, process: subprocess.Popen[bytes], control: int) -> None:
        self._process, self._control = process, control
        self._screen = pyte.HistoryScreen(COLUMNS, ROWS, history=1_000)
        self._stream = pyte.ByteStream(self._screen)
        os.set_blocking(control, False)
        asyncio.get_running_loop().add_reader(control, self._read)

    def _read(self) -> None:
        try:
            while True:
                self._stream.feed(os.read(self._control, 65_536))
        except BlockingIOError:
            pass
        except OSError:  # the other end is closed
            asyncio.get_running_loop().remove_reader(self._control)

    @property
    def text(self) -> str:
        """What is on the screen, and what has moved off its top, without spaces at the ends of lines."""
        above = ["".join(line[column].data for column in range(COLUMNS)) for line in self._screen.history.top]
        return "\n".join(line.rstrip() for line in (*above, *self._screen.display)).rstrip() + "\n"

    async def shows(self, said: str) -> str:
        """Wait until something is on the screen. Raises AssertionError with what is."""
        try:
            await until(lambda: said in self.text)
        except TimeoutError:
            raise AssertionError(self.text) from None
        return self.text

    def type(self, keys: str) -> None:
        """Press keys; Ctrl-C is `\\x03`."""
        os.write(self._control, keys.encode())

    async def ended(self) -> int:
        """Wait for the end of the process; its exit code."""
        code = await asyncio.to_thread(self._process.wait, DEADLINE_SECONDS)
        self._read()
        return code


@asynccontextmanager
async def terminal(command: list[str], environment: Mapping[str, str]) -> AsyncIterator[Terminal]:
    """Run a command in a terminal of its own, and kill it if it is still there in the end."""
    control, inside = pty.openpty()
    ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", IN_TERMINAL, *command], stdin=inside, stdout=inside, stderr=inside, env=environment
    )
    os.close(inside)
    try:
        yield Terminal(process, control)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait(DEADLINE_SECONDS)
        asyncio.get_running_loop().remove_reader(control)
        os.close(control)


def normal(screen: str, **named: str) -> str:
    """A screen whose ids, times and durations are the same in every run; `named` are texts that have a name there."""
    for name, text in named.items():
        screen = screen.replace(text, f"<{name}>")
    return DURATION.sub("<took>", TIME.sub("<time>", ID.sub("<id>", screen)))
