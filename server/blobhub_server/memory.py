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

KEPT_BYTES = 16 << 20
"""How much a heap keeps at its end when it is freed, until the process is trimmed. glibc gives back all but 128 KiB, or
twice the largest block that was freed: then each chunk of a file comes with new pages, which the kernel has to clear. To
encode one of 1 MiB took 2.3 ms, and takes 0.1."""
MAPPED_BYTES = 8 << 20
"""From which size on a block is mapped by itself: at 128 KiB, where glibc begins, each chunk would be."""

_M_ARENA_MAX, _M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -8, -1, -3
"""Parameters of glibc's `mallopt` (malloc.h)."""

_STATM = Path("/proc/self/statm")


def tune_allocator() -> None:
    """Have all threads share few heaps that keep what comes and goes, where the C library can. Call it before there are
    threads.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(_M_ARENA_MAX, MAX_ARENAS)
        tune(_M_TRIM_THRESHOLD, KEPT_BYTES)
        tune(_M_MMAP_THRESHOLD, MAPPED_BYTES)


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
