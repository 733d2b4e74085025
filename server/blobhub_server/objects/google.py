"""Objects in a bucket of Google Cloud Storage: `<prefix>/sha256/<digest>`, `….outline`, `<prefix>/uploads/<upload id>/…`.

An object appears under its digest by one write or one server-side copy, so it is whole or not there; its outline is stored
before it. What is larger than a block is first written as an upload of its own, under a fresh id that nobody knows, so what
a killed server leaves is an upload that nobody has open.

Clients send parts to Google themselves, and parts are composed there. Nobody but us computes SHA-256, so a composed object
is read once. Google's library blocks, so it is called in threads of our own: a slow bucket holds up nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

import google_crc32c
from google.cloud import storage

from blobhub_server.errors import ContentLost, StorageUnavailable
from blobhub_server.ids import is_uuid
from blobhub_server.objects.block_writer import Block, BlockWriter
from blobhub_server.objects.contract import (
    MAX_PARTS,
    DigestMismatch,
    ObjectNotFound,
    ObjectStore,
    ObjectTooLarge,
    ObjectWriter,
    PartMismatch,
    StoredObject,
    UploadPart,
    is_digest,
    require_range,
)
from blobhub_server.objects.google_bucket import Bucket, Missing, Unmet, translated
from blobhub_server.objects.grant import Grant, SignedRequest
from blobhub_server.objects.outline import BLOCK_BYTES, Hasher, Outline
from blobhub_server.scarcity import Threads

Value = TypeVar("Value")

THREADS = 8
BLOCKS_AT_ONCE = 8
"""How many blocks a reader asks for at once: each request takes tens of milliseconds, however little it asks for."""
MAX_SOURCES = 32
"""How many objects Google composes at once."""
_OUTLINE = ".outline"


class GoogleObjects(ObjectStore):
    """An object store in a bucket, which several servers may share."""

    def __init__(self, client: storage.Client, bucket: str, prefix: str = "") -> None:
        """`prefix` is empty or ends with a slash."""
        self._bucket = Bucket(client, bucket, prefix)
        self._threads = Threads(THREADS, thread_name_prefix="objects")

    def _writer(self, max_bytes: int | None) -> ObjectWriter:
        return GoogleWriter(self._bucket, self._threads, max_bytes)

    async def read(self, digest: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        require_range(offset, length)
        outline = await self._in_thread(partial(self._outline, digest))
        cover = outline.cover(offset, length)
        while some := list(islice(cover, BLOCKS_AT_ONCE)):
            first, last = some[0][0], some[-1][0]
            data = await self._in_thread(partial(self._span, digest, first, last, outline.size))
            for index, part in some:
                block = data[(index - first) * BLOCK_BYTES :][:BLOCK_BYTES]
                outline.require(index, block)
                yield block[part]

    async def size(self, digest: str) -> int:
        return (await self._in_thread(partial(self._outline, digest))).size

    async def probe(self) -> None:
        await self._in_thread(self._probe)

    async def sign(self, grant: Grant) -> SignedRequest:
        return await self._in_thread(partial(self._sign, grant))

    async def parts(self, upload_id: str) -> list[UploadPart]:
        return [part for part, _ in (await self._in_thread(partial(self._parts, upload_id))).values()]

    async def compose(
        self, upload_id: str, parts: Sequence[UploadPart], *, expected: str | None = None, max_bytes: int | None = None
    ) -> str:
        size = sum(part.size for part in parts)
        if max_bytes is not None and size > max_bytes:
            raise ObjectTooLarge(max_bytes)
        if not parts:
            return await self.put(b"")
        name, generation = await self._in_thread(partial(self._compose, upload_id, parts, size))
        try:
            outline = await self._hash(name, generation, size)
            if expected is not None and expected != outline.digest:
                raise DigestMismatch(expected, outline.digest)
            await self._in_thread(partial(_publish, self._bucket, name, outline, generation))
        except (Missing, Unmet):  # A part that is the whole was sent again, or another server has composed it, too.
            raise PartMismatch(await self._in_thread(partial(self._changed, upload_id, parts))) from None
        return outline.digest

    async def discard(self, upload_id: str) -> None:
        if is_uuid(upload_id):
            names = await self._in_thread(lambda: [blob.name for blob in self._bucket.below(f"uploads/{upload_id}/")])
            await asyncio.gather(*(self._in_thread(partial(self._bucket.delete, name)) for name in names))

    async def page(self, after: str, limit: int) -> list[StoredObject]:
        return await self._in_thread(lambda: list(islice(self._stored(after), limit)))

    async def delete(self, stored: StoredObject) -> bool:
        return await self._in_thread(partial(self._delete, stored))

    async def uploads(self, after: str, limit: int) -> list[str]:
        return await self._in_thread(lambda: self._bucket.folders("uploads/", after, limit))

    async def _in_thread(self, work: Callable[[], Value]) -> Value:
        return await _in_thread(self._threads, work)

    def _outline(self, digest: str) -> Outline:
        """The outline of an object. Raises ObjectNotFound, ContentLost."""
        if not is_digest(digest):
            raise ObjectNotFound
        try:
            size, _ = self._bucket.look_at(_name(digest))
        except Missing:
            raise ObjectNotFound from None
        if size <= BLOCK_BYTES:
            return Outline(digest=digest, size=size, blocks=[bytes.fromhex(digest)])
        try:
            outline = Outline.decode(digest, self._bucket.read(_name(digest) + _OUTLINE))
        except Missing:
            raise ContentLost(digest) from None
        if outline.size != size:
            raise ContentLost(digest)
        return outline

    def _span(self, digest: str, first: int, last: int, size: int) -> bytes:
        """The bytes of some blocks. Raises ObjectNotFound."""
        end = min(size, (last + 1) * BLOCK_BYTES)
        if end == first * BLOCK_BYTES:
            return b""
        try:
            return self._bucket.read(_name(digest), start=first * BLOCK_BYTES, end=end)
        except Missing:
            raise ObjectNotFound from None

    def _probe(self) -> None:
        name, data = f"probe/{secrets.token_hex(16)}", secrets.token_bytes(4096)
        self._bucket.write(name, data)
        try:
            if self._bucket.read(name) != data:
                raise OSError("it gives back other bytes than were written")
        finally:
            self._bucket.delete(name)

    def _sign(self, grant: Grant) -> SignedRequest:
        """A V4 signature. Its holder sends the headers as they are, so Google holds a part to its size."""
        if grant.method == "GET":
            name, headers = _name(grant.name), {}
        else:
            name = _part_name(grant.name, grant.part)
            headers = {"x-goog-content-length-range": f"{grant.size},{grant.size}"}
        url = self._bucket.sign(name, grant.method, headers, grant.expire_time)
        return SignedRequest(method=grant.method, url=url, headers=headers, expire_time=grant.expire_time)

    def _parts(self, upload_id: str) -> dict[int, tuple[UploadPart, int]]:
        """The parts of an upload by number, each with the generation that it was seen in."""
        if not is_uuid(upload_id):
            return {}
        found = {}
        for blob in self._bucket.below(f"uploads/{upload_id}/"):
            number = blob.name.rpartition("/")[2]
            if number.isdecimal():
                # A part was sent in one go, so Google knows its MD5, which is the ETag that its sender was answered.
                etag = base64.b64decode(blob.md5_hash).hex()
                part = UploadPart(number=int(number), size=int(blob.size), etag=etag)
                found[part.number] = (part, int(blob.generation))
        return found

    def _compose(self, upload_id: str, parts: Sequence[UploadPart], size: int) -> tuple[str, int]:
        """Compose parts, in several rounds if there are many. Returns name and generation of the whole.

        Raises PartMismatch.
        """
        known = self._parts(upload_id)
        for part in parts:
            if part.number not in known or known[part.number][0] != part:
                raise PartMismatch(part.number)
        sources = [(_part_name(upload_id, part.number), known[part.number][1]) for part in parts]
        rounds = 0
        while len(sources) > 1:
            chunks = [sources[at : at + MAX_SOURCES] for at in range(0, len(sources), MAX_SOURCES)]
            names = [f"uploads/{upload_id}/composed-{rounds}-{index}" for index in range(len(chunks))]
            try:
                composed = [self._bucket.compose(name, chunk) for name, chunk in zip(names, chunks, strict=True)]
            except (Missing, Unmet):
                raise PartMismatch(self._changed(upload_id, parts)) from None
            sources, rounds = list(zip(names, (generation for _, generation in composed), strict=True)), rounds + 1
            if sum(whole for whole, _ in composed) != size:
                raise PartMismatch(self._changed(upload_id, parts))
        return sources[0]

    def _changed(self, upload_id: str, parts: Sequence[UploadPart]) -> int:
        """The number of the first part that is not there any more, or is another one."""
        known = self._parts(upload_id)
        return next((part.number for part in parts if known.get(part.number, (None, 0))[0] != part), parts[0].number)

    async def _hash(self, name: str, generation: int, size: int) -> Outline:
        """The outline of a composed object, which is read for that. What is read is what Google has stored."""
        hasher, crc32c, span = Hasher(), google_crc32c.Checksum(), BLOCKS_AT_ONCE * BLOCK_BYTES
        for start in range(0, size, span):
            end = min(size, start + span)
            data = await self._in_thread(partial(self._bucket.read, name, start=start, end=end, generation=generation))
            await self._in_thread(partial(_update, hasher, crc32c, data))
        stored = await self._in_thread(partial(self._bucket.crc32c, name, generation))
        if base64.b64encode(crc32c.digest()).decode() != stored:
            raise StorageUnavailable
        return hasher.outline()

    def _stored(self, after: str) -> Iterator[StoredObject]:
        """Objects by digest, those after one. An outline that a killed server has left alone counts as one."""
        current, generations = "", ["0", "0"]
        for blob in self._bucket.below("sha256/", after=after):
            digest, _, kind = blob.name.rpartition("/")[2].partition(".")
            if digest <= after or not is_digest(digest):
                continue
            if digest != current:
                if current:
                    yield StoredObject(digest=current, generation="/".join(generations))
                current, generations = digest, ["0", "0"]
            generations[1 if kind else 0] = str(blob.generation)
        if current:
            yield StoredObject(digest=current, generation="/".join(generations))

    def _delete(self, stored: StoredObject) -> bool:
        """Each of the two only in the generation that was seen: a writer makes new ones, the outline first."""
        generations = [int(text) for text in stored.generation.split("/")]
        try:
            for name, generation in zip((_name(stored.digest), _name(stored.digest) + _OUTLINE), generations, strict=True):
                if generation:
                    self._bucket.delete(name, generation)
        except Unmet:
            return False
        return True


class GoogleWriter(BlockWriter):
    """Writes an object of one block at once, and a larger one by a resumable upload and a copy."""

    def __init__(self, bucket: Bucket, threads: Threads, max_bytes: int | None) -> None:
        super().__init__(max_bytes)
        self._bucket = bucket
        self._threads = threads
        self._first: bytes | None = None
        self._name = ""
        self._stream: storage.fileio.BlobWriter | None = None

    async def _in_thread(self, work: Callable[[], Value]) -> Value:
        return await _in_thread(self._threads, work)

    def _write_block(self, block: Block) -> None:
        if self._stream is None and self._first is None:
            self._first = bytes(block)
            return
        if self._stream is None:
            self._name = f"uploads/{self._bucket.new_id()}/writing"
            self._stream = self._bucket.open(self._name)
            self._stream.write(self._first)
        self._stream.write(bytes(block))

    def _keep(self, outline: Outline) -> None:
        if self._stream is None:
            self._bucket.write(_name(outline.digest), self._first or b"")
            return
        self._stream.close()
        try:
            _publish(self._bucket, self._name, outline)
        except (Missing, Unmet):  # Nobody else knows the name, so what was acknowledged is lost.
            raise StorageUnavailable from None
        self._bucket.delete(self._name)

    def _discard(self) -> None:
        if self._stream is not None:
            self._bucket.abandon(self._stream)
            self._bucket.delete(self._name)


async def _in_thread(threads: Threads, work: Callable[[], Value]) -> Value:
    """Call Google's library in a thread. Raises StorageUnavailable in place of its errors."""
    return await asyncio.get_running_loop().run_in_executor(threads, translated(work))


def _publish(bucket: Bucket, name: str, outline: Outline, generation: int | None = None) -> None:
    """Have an object that is there under another name appear under its digest. Raises Missing, Unmet."""
    if len(outline.blocks) > 1:
        bucket.write(_name(outline.digest) + _OUTLINE, outline.encode())
    bucket.copy(name, _name(outline.digest), generation)


def _update(hasher: Hasher, crc32c: google_crc32c.Checksum, data: bytes) -> None:
    for at in range(0, len(data), BLOCK_BYTES):
        hasher.update(data[at : at + BLOCK_BYTES])
    crc32c.update(data)


def _name(digest: str) -> str:
    return f"sha256/{digest}"


def _part_name(upload_id: str, number: int) -> str:
    """The name of a part. Raises PartMismatch for what is none."""
    if not is_uuid(upload_id) or not 1 <= number <= MAX_PARTS:
        raise PartMismatch(number)
    return f"uploads/{upload_id}/{number:05}"
