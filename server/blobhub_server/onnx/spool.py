"""Bytes on their way to a process that reads a file: a private one, which has no name any more."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from blobhub_server.objects.disk import in_thread


class Spool:
    """A file that bytes are appended to. `reader` reads them, and cannot write."""

    def __init__(self, writer: BinaryIO, reader: BinaryIO) -> None:
        self._writer = writer
        self.reader = reader

    async def append(self, data: bytes | Iterator[bytes]) -> None:
        """Add bytes at the end, or pieces of them, which are made in the thread that writes them.

        Raises StorageFull, StorageUnavailable, and what making the pieces raises.
        """
        await in_thread(partial(self._writer.writelines, [data] if isinstance(data, bytes) else data))

    async def flush(self) -> None:
        """Let what was appended be read. Raises StorageFull, StorageUnavailable."""
        await in_thread(self._writer.flush)

    async def chunks(self, size: int) -> AsyncIterator[bytes]:
        """All bytes, from the first on, so many at once."""
        await in_thread(partial(self.reader.seek, 0))
        while chunk := await in_thread(partial(self.reader.read, size)):
            yield chunk


@asynccontextmanager
async def spooling(folder: Path) -> AsyncIterator[Spool]:
    """A spool in a folder, which is made. Raises StorageFull, StorageUnavailable.

    The file has a name only while it is opened, so a kill leaves none behind.
    """
    writer, reader = await in_thread(partial(_open, folder))
    with reader:
        try:
            yield Spool(writer, reader)
        finally:
            await in_thread(partial(_close, writer))


def _open(folder: Path) -> tuple[BinaryIO, BinaryIO]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"spool-{secrets.token_hex(16)}"
    writer = path.open("xb")
    try:
        return writer, path.open("rb")
    finally:
        path.unlink()


def _close(writer: BinaryIO) -> None:
    with suppress(OSError):  # What is buffered cannot be written: the disk is full, and whoever appended it knows.
        writer.close()
