"""Memory that was freed is given back to the operating system."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import asyncio
from blobhub_server import memory

async def main():
    memory.LOOK_SECONDS = 0.01
    trimming = asyncio.create_task(memory.trim_forever())
    await asyncio.sleep(0.05)
    values = [bytearray(100_000) for _ in range(2_000)]
    del values[::2]  # what is left lies between what is free
    while memory.resident_bytes() > 150_000_000:
        await asyncio.sleep(0.01)
    assert not trimming.done()
    print(len(values))

asyncio.run(main())
"""


def test_what_is_free_between_what_is_used_is_given_back() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("1000\n", "")
