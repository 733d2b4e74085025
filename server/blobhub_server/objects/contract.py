"""The contract of an object store: it keeps bytes of any size under their digest.

Nothing here holds more than a few blocks of an object in memory, except `put` and `get`, which are for small objects. All
bytes are verified before they are handed out. An object is kept with the digests of its blocks (`outline.py`), so a range
can be verified without reading the rest.

A large object can also come in parts, by presigned URLs and in any order. Until it is composed, what has come belongs to an
upload, which whoever began it gave a random id. The store does not know which uploads are open and what refers to an object:
whoever does lists objects and uploads, and deletes those that nobody needs.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from blobhub_server.objects.grant import Grant, SignedRequest

MAX_PARTS = 10_000
"""The parts of an upload are numbered from 1 to this."""


_DIGEST = re.compile(r"[0-9a-f]{64}")


class ObjectNotFound(Exception):
    """There are no bytes of that digest."""


class ObjectTooLarge(Exception):
    """More bytes came than the writer takes."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"an object of more than {max_bytes} bytes")
        self.max_bytes = max_bytes


class DigestMismatch(Exception):
    """The bytes written do not have the digest that the sender named."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"the digest is {actual}, not {expected}")
        self.expected = expected
        self.actual = actual


class PartMismatch(Exception):
    """A part is not there, or is not the one that was named."""

    def __init__(self, number: int) -> None:
        super().__init__(f"part {number} is not there, or is another one")
        self.number = number


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPart:
    """A part of an upload: its number, its size in bytes, and the ETag that its sender was answered, without quotes.

    The ETag tells one content from another. What it is made of differs by store.
    """

    number: int
    size: int
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object as it is stored now: its generation is another one whenever the same bytes are stored again."""

    digest: str
    generation: str


class ObjectWriter(ABC):
    """Writes one object. Only one task at a time may use it.

    It ends with its commit, its abort, or the first error while writing. Any later call but `abort` raises RuntimeError.
    """

    size: int
    """How many bytes were appended so far."""

    @abstractmethod
    async def append(self, data: bytes) -> None:
        """Add bytes at the end. Raises ObjectTooLarge, and then adds none of them."""

    @abstractmethod
    async def commit(self, expected: str | None = None) -> str:
        """Keep what was appended; return its digest once it is durable.

        Bytes that are already stored are replaced, because those may have become corrupt. Raises DigestMismatch, and keeps
        nothing, when the digest is not `expected`.
        """

    @abstractmethod
    async def abort(self) -> None:
        """Forget what was appended. Changes nothing once it is committed.

        What cannot be removed now is left to the store's sweep, or to the collector.
        """


class ObjectStore(ABC):
    """Content-addressed bytes. Digests are SHA-256 in lower-case hex.

    Where bytes cannot be read or written now, all raise StorageUnavailable, or StorageFull; so do writers.
    """

    @asynccontextmanager
    async def write(self, *, max_bytes: int | None = None) -> AsyncIterator[ObjectWriter]:
        """A writer of one object, of at most `max_bytes`; it is aborted when it is left without a commit."""
        writer = self._writer(max_bytes)
        try:
            yield writer
        finally:
            await writer.abort()

    @abstractmethod
    def _writer(self, max_bytes: int | None) -> ObjectWriter:
        """A new writer, which nothing is written to yet."""

    @abstractmethod
    def read(self, digest: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of a digest from `offset` on, `length` of them or as many as there are, in chunks of at most 1 MiB.

        Each chunk is verified before it is handed out. Raises ObjectNotFound; ContentLost when it reaches a corrupt block.
        """

    @abstractmethod
    async def size(self, digest: str) -> int:
        """How many bytes an object has. Raises ObjectNotFound, ContentLost."""

    @abstractmethod
    async def probe(self) -> None:
        """Write test bytes, read them back and remove them. Raises StorageUnavailable, with the cause that is to be told."""

    async def sweep(self) -> None:
        """Remove what writers have left that were killed, or could not remove it. What is left as an upload stays."""
        return

    @abstractmethod
    async def sign(self, grant: Grant) -> SignedRequest:
        """A request that whoever has it can make once or more until the grant ends, without a key."""

    @abstractmethod
    async def parts(self, upload_id: str) -> list[UploadPart]:
        """The parts that have come whole, by number. None where there is no such upload."""

    @abstractmethod
    async def compose(
        self, upload_id: str, parts: Sequence[UploadPart], *, expected: str | None = None, max_bytes: int | None = None
    ) -> str:
        """Keep the bytes of these parts, in this order, as one object; return its digest. All of them are read for that.

        The parts stay until the upload is discarded, so it can be done again, and gives the same. Raises PartMismatch,
        DigestMismatch, ObjectTooLarge.
        """

    @abstractmethod
    async def discard(self, upload_id: str) -> None:
        """Remove all that an upload has brought. An object that was composed of it stays."""

    @abstractmethod
    async def page(self, after: str, limit: int) -> list[StoredObject]:
        """So many objects at most, by digest, those after a digest or, for an empty text, from the first one on."""

    @abstractmethod
    async def delete(self, stored: StoredObject) -> bool:
        """Remove an object, unless it was stored again since: then False, and nothing has happened."""

    @abstractmethod
    async def uploads(self, after: str, limit: int) -> list[str]:
        """So many ids of uploads that have brought anything, at most; those after an id."""

    async def put(self, data: bytes) -> str:
        """Keep a small object; return its digest once it is durable."""
        async with self.write() as writer:
            await writer.append(data)
            return await writer.commit()

    async def get(self, digest: str) -> bytes:
        """The whole of a small object. Raises ObjectNotFound, ContentLost."""
        return b"".join([chunk async for chunk in self.read(digest)])


def is_digest(text: str) -> bool:
    """Whether a text is a SHA-256 in lower-case hex."""
    return _DIGEST.fullmatch(text) is not None


def require_range(offset: int, length: int | None) -> None:
    """Raise ValueError unless a range begins within an object and has no negative length."""
    if offset < 0 or (length is not None and length < 0):
        raise ValueError("a range begins and ends within the object")
