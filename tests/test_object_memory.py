"""Large objects are written and read in constant memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from figures import Figure
from scale import scaled

LARGE_BYTES = scaled(1024, least=128) << 20
GROWTH_BYTES = 32 << 20
LARGE = """
import asyncio, hashlib, json, os, pathlib, re, sys, time
from blobhub_server.objects.local import LocalObjects
root, size = pathlib.Path(sys.argv[1]), int(sys.argv[2])
store, chunk, seconds = LocalObjects(root), os.urandom(256 << 10), {}

def peak():  # not ru_maxrss: a process begins with that of the one it was forked from
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) << 10

async def write(size):
    async with store.write() as writer:
        for _ in range(size // len(chunk)):
            await writer.append(chunk)
        return await writer.commit()

async def read(digest):
    return sum([len(piece) async for piece in store.read(digest)])

def bare_write(size):
    hasher = hashlib.sha256()
    with (root / "bare").open("xb") as file:
        for _ in range(size // len(chunk)):
            hasher.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())

def bare_read():
    hasher = hashlib.sha256()
    with (root / "bare").open("rb") as file:
        while piece := file.read(1 << 20):
            hasher.update(piece)

def time_of(name, began):
    seconds[name] = time.perf_counter() - began
    return time.perf_counter()

async def main():
    await read(await write(8 << 20))
    before, began = peak(), time.perf_counter()
    digest = await write(size)
    began = time_of("write", began)
    assert await read(digest) == size
    began = time_of("read", began)
    growth = peak() - before
    bare_write(size)
    began = time_of("bare write", began)
    bare_read()
    time_of("bare read", began)
    print(json.dumps({"growth": growth, "seconds": seconds}))

asyncio.run(main())
"""


def test_a_large_object_takes_no_more_memory_than_a_small_one(tmp_path: Path, figure: Figure) -> None:
    command = [sys.executable, "-c", LARGE, str(tmp_path), str(LARGE_BYTES)]
    ran = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    rates = {name: f"{LARGE_BYTES / seconds / 1e6:.0f} MB/s" for name, seconds in ran["seconds"].items()}
    figure(f"{LARGE_BYTES >> 20} MiB in {ran['growth'] / (1 << 20):.1f} MiB more: {rates}")
    assert ran["growth"] < GROWTH_BYTES
