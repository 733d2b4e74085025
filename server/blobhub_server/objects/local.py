"""Objects as local files: `<root>/sha256/ab/cdef…`, and `….outline` beside those of more than one block.

A file appears under its name only when it is whole and on disk: it is written as a part, synced and renamed, and then the
folder is synced. So a crash at any point leaves no object or all of it. The outline is stored before the object, so every
object has its outline.
"""

from __future__ import annotations

import asyncio
import errno
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from blobhub_server.background import uninterrupted
from blobhub_server.errors import ContentLost, StorageFull, StorageUnavailable
from blobhub_server.objects.contract import DigestMismatch, ObjectNotFound, ObjectStore, ObjectTooLarge, ObjectWriter
from blobhub_server.objects.outline import BLOCK_BYTES, Hasher, Outline
from blobhub_server.objects.part import Part, sweep

Value = TypeVar("Value")

_FULL = (errno.ENOSPC, errno.EDQUOT)

_DIGEST = re.compile(r"[0-9a-f]{64}")


class LocalObjects(ObjectStore):
    """An object store in a folder, which several processes may share."""

    def __init__(self, root: Path) -> None:
        self._root, self._parts = root / "sha256", root / "parts"
        for folder in (self._root, self._parts):
            folder.mkdir(parents=True, exist_ok=True)

    async def sweep(self) -> None:
        """Remove the parts of writers that were killed."""
        await asyncio.to_thread(sweep, self._parts)

    @asynccontextmanager
    async def write(self, *, max_bytes: int | None = None) -> AsyncIterator[ObjectWriter]:
        writer = LocalWriter(self._path, self._parts, max_bytes)
        try:
            yield writer
        finally:
            await writer.abort()

    async def read(self, digest: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        if offset < 0 or (length is not None and length < 0):
            raise ValueError("a range begins and ends within the object")
        path = self._path(digest)
        outline = await _in_thread(partial(_outline, path, digest))
        # Each block is opened and closed again, so a reader that stops leaves nothing to close.
        for index, part in outline.cover(offset, length):
            block = await _in_thread(partial(_block, path, outline, index))
            yield block[part]

    async def size(self, digest: str) -> int:
        return (await _in_thread(partial(_outline, self._path(digest), digest))).size

    async def probe(self) -> None:
        await asyncio.to_thread(self._probe)

    def _path(self, digest: str) -> Path:
        """The file of an object. Raises ObjectNotFound for what is not a digest, so that no other text becomes a path."""
        if not _DIGEST.fullmatch(digest):
            raise ObjectNotFound
        return self._root / digest[:2] / digest[2:]

    def _probe(self) -> None:
        part, data = Part(self._parts), secrets.token_bytes(4096)
        try:
            part.write(data)
            if part.read_back() != data:
                raise OSError(errno.EIO, "it gives back other bytes than were written")
        finally:
            part.discard()


class LocalWriter(ObjectWriter):
    """Writes an object as a part, a block at a time and in a thread; an object of one block costs one hop."""

    def __init__(self, path_of: Callable[[str], Path], parts: Path, max_bytes: int | None) -> None:
        self.size = 0
        self._path_of = path_of
        self._parts = parts
        self._max_bytes = max_bytes
        self._hasher = Hasher()
        self._block = bytearray()
        self._part: Part | None = None
        self._ended = False

    async def append(self, data: bytes) -> None:
        self._require_open()
        if self._max_bytes is not None and self.size + len(data) > self._max_bytes:
            raise ObjectTooLarge(self._max_bytes)
        self.size += len(data)
        rest = memoryview(data)
        while rest:
            room = BLOCK_BYTES - len(self._block)
            self._block += rest[:room]
            rest = rest[room:]
            if len(self._block) == BLOCK_BYTES:
                await self._in_thread(self._write_block)

    async def commit(self, expected: str | None = None) -> str:
        self._require_open()
        digest = await self._in_thread(lambda: self._keep(expected))
        self._ended = True
        return digest

    async def abort(self) -> None:
        self._ended = True
        if self._part is not None:
            await uninterrupted(_in_thread(self._part.discard))
            self._part = None

    def _require_open(self) -> None:
        if self._ended:
            raise RuntimeError("the writer has ended")

    async def _in_thread(self, work: Callable[[], Value]) -> Value:
        """Work on the file in a thread. The writer ends when that fails or is cancelled: the file may then lack bytes."""
        try:
            return await uninterrupted(_in_thread(work))
        except BaseException:
            self._ended = True
            raise

    def _write_block(self) -> None:
        if self._part is None:
            self._part = Part(self._parts)
        if self._block:
            self._hasher.update(self._block)
            self._part.write(self._block)
            self._block.clear()

    def _keep(self, expected: str | None) -> str:
        self._write_block()
        outline = self._hasher.outline()
        if expected is not None and expected != outline.digest:
            raise DigestMismatch(expected, outline.digest)
        path = self._path_of(outline.digest)
        if len(outline.blocks) > 1:
            _keep_outline(self._parts, path, outline)
        assert self._part is not None
        self._part.keep(path)
        self._part = None
        return outline.digest


async def _in_thread(work: Callable[[], Value]) -> Value:
    """Do work on files in a thread. Raises StorageFull or StorageUnavailable in place of an OSError."""
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise StorageFull if error.errno in _FULL else StorageUnavailable from error


def _keep_outline(parts: Path, path: Path, outline: Outline) -> None:
    part = Part(parts)
    try:
        part.write(outline.encode())
        part.keep(_outline_path(path))
    finally:
        part.discard()


def _outline(path: Path, digest: str) -> Outline:
    """The outline of an object. Raises ObjectNotFound, ContentLost."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise ObjectNotFound from None
    if size <= BLOCK_BYTES:
        outline = Outline(digest=digest, size=size, blocks=[bytes.fromhex(digest)])
        _block(path, outline, 0)
        return outline
    try:
        outline = Outline.decode(digest, _outline_path(path).read_bytes())
    except FileNotFoundError:
        raise ContentLost(digest) from None
    if outline.size != size:
        raise ContentLost(digest)
    return outline


def _block(path: Path, outline: Outline, index: int) -> bytes:
    """The bytes of a block, verified. Raises ObjectNotFound, ContentLost."""
    try:
        with path.open("rb") as file:
            file.seek(index * BLOCK_BYTES)
            block = file.read(BLOCK_BYTES)
    except FileNotFoundError:
        raise ObjectNotFound from None
    outline.require(index, block)
    return block


def _outline_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.outline")
