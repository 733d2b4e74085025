"""Keeps the memory of the process near what it uses, and gives what was freed back to the operating system.

glibc keeps what is freed in the middle of its heaps, and has a heap for each of up to eight threads a core. After large
values had come and gone, a server held 455 MiB, and used 106 of them.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path

LOOK_SECONDS = 10.0
GROWN_BYTES = 32 << 20
"""By how much the process has grown, since it was looked at last, where it is worth the 50 ms that a thread takes for it."""

MAX_ARENAS = 2
"""How many heaps all threads share, so that what one thread has freed another uses. After large outputs of scripts a server
held 169 MiB, where it held 314 with a heap for each thread. To have glibc map large blocks by themselves saves nothing more,
and a write of SQLite took 30 ms of the loop in place of 4."""

_M_ARENA_MAX = -8
"""A parameter of glibc's `mallopt` (malloc.h)."""

_STATM = Path("/proc/self/statm")


def tune_allocator() -> None:
    """Have all threads share few heaps, where the C library can. Call it before there are threads."""
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(_M_ARENA_MAX, MAX_ARENAS)


async def trim_forever() -> None:
    """Give free memory back whenever the process has grown, until cancelled. Where the C library cannot, return."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return
    least = resident_bytes()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if resident_bytes() > least + GROWN_BYTES:
            await asyncio.to_thread(trim, 0)
            least = resident_bytes()
        least = min(least, resident_bytes())


def resident_bytes() -> int:
    """The memory that this process holds."""
    return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
