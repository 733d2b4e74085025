"""Uploads in parts as local files: `<root>/<upload id>/<part number>`, each whole or not there.

A part's file is its bytes, and after them their SHA-256 and CRC32C. So a part and what is known of it appear in one rename,
and a part that is sent again replaces the former one as a whole.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import google_crc32c

from blobhub_server.background import uninterrupted
from blobhub_server.errors import ContentLost, StorageUnavailable
from blobhub_server.ids import is_uuid
from blobhub_server.objects.behind import Behind
from blobhub_server.objects.contract import MAX_PARTS, ObjectTooLarge, PartMismatch, UploadPart
from blobhub_server.objects.disk import in_thread
from blobhub_server.objects.outline import BLOCK_BYTES
from blobhub_server.objects.part import Part

_SHA256_BYTES, _CRC32C_BYTES = 32, 4
_FOOTER_BYTES = _SHA256_BYTES + _CRC32C_BYTES


class PartIncomplete(Exception):
    """Fewer bytes have come than the part has."""


class ChecksumMismatch(Exception):
    """The bytes that have come do not have the checksum that their sender named."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the {name} of what has come is another one")
        self.name = name


class LocalUploads:
    """The uploads in a folder, which several processes may share."""

    def __init__(self, root: Path, parts: Path) -> None:
        """`parts` is the folder of files that are being written."""
        self._root = root
        self._parts = parts
        root.mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def write(self, upload_id: str, number: int, size: int) -> AsyncIterator[PartWriter]:
        """A writer of one part of `size` bytes; nothing is kept when it is left without a commit. Raises PartMismatch."""
        writer = PartWriter(self._parts, self._path(upload_id, number), number, size)
        try:
            yield writer
        finally:
            await writer.abort()

    async def parts(self, upload_id: str) -> list[UploadPart]:
        """The parts that have come whole, by number."""
        return await in_thread(lambda: _known(self._root / upload_id)) if is_uuid(upload_id) else []

    async def read(self, upload_id: str, part: UploadPart) -> AsyncGenerator[bytes, None]:
        """The bytes of a part, a block at a time. Raises PartMismatch, and, at its end, ContentLost when it is corrupt."""
        path, hasher = self._path(upload_id, part.number), hashlib.sha256()
        if await in_thread(lambda: _look_at(path, part.number)) != part:
            raise PartMismatch(part.number)
        for offset in range(0, part.size, BLOCK_BYTES):
            block = await in_thread(partial(_read, path, offset, min(BLOCK_BYTES, part.size - offset), hasher))
            if block is None:
                raise PartMismatch(part.number)
            yield block
        if hasher.hexdigest() != part.etag:
            if await in_thread(lambda: _look_at(path, part.number)) != part:  # It was sent again while it was read.
                raise PartMismatch(part.number)
            raise ContentLost(part.etag)

    async def discard(self, upload_id: str) -> None:
        """Remove all parts of an upload."""
        if is_uuid(upload_id):
            await in_thread(partial(shutil.rmtree, self._root / upload_id, ignore_errors=True))

    async def page(self, after: str, limit: int) -> list[str]:
        """The ids of uploads that have brought anything, those after one."""
        names = await in_thread(lambda: sorted(path.name for path in self._root.iterdir()))
        return [name for name in names if name > after][:limit]

    def _path(self, upload_id: str, number: int) -> Path:
        """The file of a part. Raises PartMismatch for what is none, so that no other text becomes a path."""
        if not is_uuid(upload_id) or not 1 <= number <= MAX_PARTS:
            raise PartMismatch(number)
        return self._root / upload_id / f"{number:05}"


class PartWriter:
    """Writes one part of an upload. Only one task at a time may use it."""

    def __init__(self, folder: Path, path: Path, number: int, size: int) -> None:
        self._folder = folder
        self._path = path
        self._number = number
        self._size = size
        self._taken = 0
        self._block = bytearray()
        self._behind = Behind()
        self._sha256 = hashlib.sha256()
        self._crc32c = google_crc32c.Checksum()
        self._part: Part | None = None

    async def append(self, data: bytes) -> None:
        """Add bytes at the end. Raises ObjectTooLarge, and then takes none of them."""
        self._taken += len(data)
        if self._taken > self._size:
            raise ObjectTooLarge(self._size)
        self._block += data
        if len(self._block) >= BLOCK_BYTES:
            await uninterrupted(self._behind.settle())
            block, self._block = self._block, bytearray()
            # While they are hashed and written, the next bytes come.
            self._behind.begin(in_thread(lambda: self._write(block)))

    async def commit(self, checksums: Mapping[str, bytes]) -> UploadPart:
        """Keep the part once it is durable, in place of one of this number that is there.

        `checksums` are what the sender says of the bytes, by `sha-256` and `crc32c`. Raises PartIncomplete,
        ChecksumMismatch.
        """
        if self._taken != self._size:
            raise PartIncomplete
        await uninterrupted(self._behind.settle())
        return await uninterrupted(in_thread(lambda: self._keep(checksums)))

    async def abort(self) -> None:
        """Forget what was taken. Changes nothing once it is committed."""
        if self._behind.is_busy or self._part is not None:
            await uninterrupted(self._forget())

    async def _forget(self) -> None:
        await self._behind.forget()
        if self._part is not None:
            with suppress(StorageUnavailable):  # as `BlockWriter.abort`
                await in_thread(self._part.discard)
            self._part = None

    def _write(self, block: bytearray) -> None:
        if self._part is None:
            self._part = Part(self._folder)
        self._sha256.update(block)
        self._crc32c.update(bytes(block))
        self._part.write(block)

    def _keep(self, checksums: Mapping[str, bytes]) -> UploadPart:
        self._write(self._block)
        actual = {"sha-256": self._sha256.digest(), "crc32c": self._crc32c.digest()}
        for name, expected in checksums.items():
            if actual[name] != expected:
                raise ChecksumMismatch(name)
        assert self._part is not None
        self._part.write(actual["sha-256"] + actual["crc32c"])
        self._part.keep(self._path)
        self._part = None
        return UploadPart(number=self._number, size=self._size, etag=actual["sha-256"].hex())


def _known(folder: Path) -> list[UploadPart]:
    with suppress(FileNotFoundError, NotADirectoryError):
        numbers = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
        found = [_look_at(folder / f"{number:05}", number) for number in numbers]
        return [part for part in found if part is not None]
    return []


def _look_at(path: Path, number: int) -> UploadPart | None:
    """What a file says of its part; None where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2) - _FOOTER_BYTES
            if size < 0:
                return None
            file.seek(size)
            return UploadPart(number=number, size=size, etag=file.read(_SHA256_BYTES).hex())
    except FileNotFoundError:
        return None


def _read(path: Path, offset: int, length: int, hasher: hashlib._Hash) -> bytes | None:
    """Some bytes of a part, which go into the hash as well; None where it is gone or was replaced by a shorter one."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            block = file.read(length)
    except FileNotFoundError:
        return None
    hasher.update(block)
    return block if len(block) == length else None
