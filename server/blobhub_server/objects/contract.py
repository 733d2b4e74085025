"""The contract of an object store: it keeps bytes of any size under their digest.

Nothing here holds more than a few blocks of an object in memory, except `put` and `get`, which are for small objects. All
bytes are verified before they are handed out. An object is kept with the digests of its blocks (`outline.py`), so a range
can be verified without reading the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager


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
        """Forget what was appended. Changes nothing once it is committed."""


class ObjectStore(ABC):
    """Content-addressed bytes. Digests are SHA-256 in lower-case hex.

    Where bytes cannot be read or written now, all but `probe` raises StorageUnavailable; so do writers.
    """

    @abstractmethod
    def write(self, *, max_bytes: int | None = None) -> AbstractAsyncContextManager[ObjectWriter]:
        """A writer of one object, of at most `max_bytes`; it is aborted when it is left without a commit."""

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
        """Write a test file, read it back and remove it. Raises OSError when that fails or the bytes differ."""

    async def put(self, data: bytes) -> str:
        """Keep a small object; return its digest once it is durable."""
        async with self.write() as writer:
            await writer.append(data)
            return await writer.commit()

    async def get(self, digest: str) -> bytes:
        """The whole of a small object. Raises ObjectNotFound, ContentLost."""
        return b"".join([chunk async for chunk in self.read(digest)])
