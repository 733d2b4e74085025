"""A process holds little more memory than it uses, and what was freed is given back to the operating system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TRIMMED = """
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


HEAPS = """
import ctypes
import threading
from pathlib import Path
from blobhub_server import memory

memory.tune_allocator()
libc = ctypes.CDLL(None)
all_have = threading.Barrier(8)


def allocate():
    libc.malloc(1_000)
    all_have.wait()


threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.fopen.restype = ctypes.c_void_p
told = ctypes.c_void_p(libc.fopen(b"told", b"w"))
libc.malloc_info(0, told)
libc.fclose(told)
print(Path("told").read_text().count("<heap nr="))
"""


KEPT = """
import resource
from blobhub.v1 import model_pb2
from blobhub_server import memory

memory.tune_allocator()
message = model_pb2.UploadModelRequest(chunk=bytes(1 << 20))
message.SerializeToString()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    message.SerializeToString()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1_000)
"""
"""Without that, each takes more than a thousand new pages."""


def printed(script: str, folder: Path) -> str:
    """What a script prints in a process of its own, which has the folder as its own."""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder, timeout=60, check=False)
    assert ran.stderr == ""
    return ran.stdout


def test_what_is_free_between_what_is_used_is_given_back(tmp_path: Path) -> None:
    assert printed(TRIMMED, tmp_path) == "1000\n"


def test_all_threads_share_two_heaps(tmp_path: Path) -> None:
    assert printed(HEAPS, tmp_path) == "2\n"


def test_a_chunk_of_a_file_takes_the_pages_of_the_one_before(tmp_path: Path) -> None:
    assert printed(KEPT, tmp_path) == "True\n"
