"""Gives memory that was freed back to the operating system.

glibc keeps what is freed in the middle of its heaps. After large values had come and gone, a server held 455 MiB, and used
106 of them.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path

LOOK_SECONDS = 10.0
GROWN_BYTES = 32 << 20
"""By how much the process has grown, since it was looked at last, where it is worth the 50 ms that a thread takes for it."""

_STATM = Path("/proc/self/statm")


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
