"""Parts: files that are being written, under names of their own, until they are whole.

A part is locked while it is written. The kernel releases the lock however the process ends, so a part that can be locked
was left behind by a kill or a power cut, and is removed. Its age is not needed to tell, so no clock is.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path


class Part:
    """A file in the folder of parts, written by this process until it is kept or discarded."""

    def __init__(self, folder: Path) -> None:
        self._path, self._file = _create(folder)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes at the end."""
        self._file.write(data)

    def read_back(self) -> bytes:
        """All that was written, once it is on disk."""
        self._sync()
        return self._path.read_bytes()

    def keep(self, path: Path) -> None:
        """Make the file appear as `<folder>/<folder>/<name>`, whole and durable, in place of one that is there."""
        self._sync()
        path.parent.mkdir(exist_ok=True)
        self._path.rename(path)
        self._file.close()
        sync_folder(path.parent)
        sync_folder(path.parent.parent)

    def discard(self) -> None:
        """Remove the file, unless it was kept. One that cannot be removed is left to a sweep, which needs its lock."""
        try:
            self._path.unlink(missing_ok=True)
        finally:
            with suppress(OSError):  # close writes what is buffered, which fails again on a full disk
                self._file.close()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def sweep(folder: Path) -> None:
    """Remove the parts that nobody writes any more, here or in another process."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(folder: Path) -> tuple[Path, BufferedWriter]:
    """A new part, locked."""
    while True:
        path = folder / secrets.token_hex(16)
        file = path.open("xb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            file.close()
            path.unlink(missing_ok=True)
            raise
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()  # A sweep removed it before it was locked.
