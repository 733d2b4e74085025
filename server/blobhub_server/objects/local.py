"""Objects as local files: `<root>/sha256/ab/cdef…`, and `….outline` beside those of more than one block.

A file appears under its name only when it is whole and on disk: it is written as a part, synced and renamed, and then the
folder is synced. So a crash at any point leaves no object or all of it. The outline is stored before the object, so every
object has its outline.
"""

from __future__ import annotations

import errno
import fcntl
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TypeVar

from blobhub_server.background import one_ahead
from blobhub_server.errors import ContentLost
from blobhub_server.objects.block_writer import Block, BlockWriter
from blobhub_server.objects.contract import (
    ObjectNotFound,
    ObjectStore,
    ObjectWriter,
    StoredObject,
    UploadPart,
    is_digest,
    require_range,
)
from blobhub_server.objects.disk import in_thread, locked
from blobhub_server.objects.grant import Grant, SignedRequest, Signer
from blobhub_server.objects.local_upload import LocalUploads
from blobhub_server.objects.outline import BLOCK_BYTES, Outline
from blobhub_server.objects.part import Part, sweep

Value = TypeVar("Value")

_OUTLINE = ".outline"


class LocalObjects(ObjectStore):
    """An object store in a folder, which several processes may share. What it signs, the server's own HTTP port serves."""

    def __init__(self, root: Path, signer: Signer | None = None) -> None:
        self._root, self._parts = root / "sha256", root / "parts"
        for folder in (self._root, self._parts):
            folder.mkdir(parents=True, exist_ok=True)
        self.part_files = LocalUploads(root / "uploads", self._parts)
        self._signer = signer

    async def sweep(self) -> None:
        """Remove the parts that no writer has open."""
        await in_thread(partial(sweep, self._parts))

    def _writer(self, max_bytes: int | None) -> ObjectWriter:
        return LocalWriter(self._path, self._parts, max_bytes)

    async def read(self, digest: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        require_range(offset, length)
        path = self._path(digest)
        outline = await in_thread(partial(_outline, path, digest))
        cover = list(outline.cover(offset, length))
        # Each block is opened and closed again, so a reader that stops leaves nothing to close.
        blocks = one_ahead(partial(in_thread, partial(_block, path, outline, index)) for index, _ in cover)
        async with aclosing(blocks):
            for _, part in cover:
                yield (await anext(blocks))[part]

    async def size(self, digest: str) -> int:
        return (await in_thread(partial(_outline, self._path(digest), digest))).size

    async def probe(self) -> None:
        await in_thread(self._probe)

    async def sign(self, grant: Grant) -> SignedRequest:
        if self._signer is None:
            raise RuntimeError("an object store without a signer signs nothing")
        return self._signer.sign(grant)

    async def parts(self, upload_id: str) -> list[UploadPart]:
        return await self.part_files.parts(upload_id)

    async def compose(
        self, upload_id: str, parts: Sequence[UploadPart], *, expected: str | None = None, max_bytes: int | None = None
    ) -> str:
        async with self.write(max_bytes=max_bytes) as writer:
            for part in parts:
                async with aclosing(self.part_files.read(upload_id, part)) as blocks:
                    async for block in blocks:
                        await writer.append(block)
            return await writer.commit(expected)

    async def discard(self, upload_id: str) -> None:
        await self.part_files.discard(upload_id)

    async def page(self, after: str, limit: int) -> list[StoredObject]:
        return await in_thread(lambda: self._page(after, limit))

    async def delete(self, stored: StoredObject) -> bool:
        path = self._path(stored.digest)
        return await in_thread(lambda: _delete(path, stored.generation))

    async def uploads(self, after: str, limit: int) -> list[str]:
        return await self.part_files.page(after, limit)

    def _path(self, digest: str) -> Path:
        """The file of an object. Raises ObjectNotFound for what is not a digest, so that no other text becomes a path."""
        if not is_digest(digest):
            raise ObjectNotFound
        return self._root / digest[:2] / digest[2:]

    def _page(self, after: str, limit: int) -> list[StoredObject]:
        """As `page`. An outline that a killed writer has left alone counts as an object."""
        found: list[StoredObject] = []
        for folder in sorted(path for path in self._root.iterdir() if path.name >= after[:2]):
            digests = {folder.name + path.name.removesuffix(_OUTLINE) for path in folder.iterdir()}
            for digest in sorted(digest for digest in digests if is_digest(digest) and digest > after):
                found.append(StoredObject(digest=digest, generation=_generation(self._path(digest))))
                if len(found) == limit:
                    return found
        return found

    def _probe(self) -> None:
        part, data = Part(self._parts), secrets.token_bytes(4096)
        try:
            part.write(data)
            if part.read_back() != data:
                raise OSError(errno.EIO, "it gives back other bytes than were written")
        finally:
            part.discard()


class LocalWriter(BlockWriter):
    """Writes an object as a part."""

    def __init__(self, path_of: Callable[[str], Path], parts: Path, max_bytes: int | None) -> None:
        super().__init__(max_bytes)
        self._path_of = path_of
        self._parts = parts
        self._part: Part | None = None

    async def _in_thread(self, work: Callable[[], Value]) -> Value:
        return await in_thread(work)

    def _write_block(self, block: Block) -> None:
        if self._part is None:
            self._part = Part(self._parts)
        self._part.write(block)

    def _keep(self, outline: Outline) -> None:
        assert self._part is not None
        path = self._path_of(outline.digest)
        path.parent.mkdir(exist_ok=True)
        with locked(path.parent, fcntl.LOCK_SH):
            if len(outline.blocks) > 1:
                _keep_outline(self._parts, path, outline)
            self._part.keep(path)

    def _discard(self) -> None:
        if self._part is not None:
            self._part.discard()


def _generation(path: Path) -> str:
    """Which files an object and its outline are. Storing the same bytes again makes others."""
    return f"{_identity(path)}/{_identity(_outline_path(path))}"


def _identity(path: Path) -> str:
    try:
        found = path.stat()
    except FileNotFoundError:
        return ""
    return f"{found.st_ino}-{found.st_mtime_ns}"


def _delete(path: Path, generation: str) -> bool:
    """Remove the files of a generation. A writer of the same object keeps both of its own, or comes after this."""
    try:
        with locked(path.parent, fcntl.LOCK_EX | fcntl.LOCK_NB):
            if _generation(path) != generation:
                return False
            path.unlink(missing_ok=True)
            _outline_path(path).unlink(missing_ok=True)
            return True
    except BlockingIOError:
        return False


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
    return path.with_name(path.name + _OUTLINE)
