"""Writing an object block by block, which is the same for every store: what is left to a store is where the blocks go."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from blobhub_server.background import uninterrupted
from blobhub_server.errors import StorageUnavailable
from blobhub_server.objects.behind import Behind
from blobhub_server.objects.contract import DigestMismatch, ObjectTooLarge, ObjectWriter
from blobhub_server.objects.outline import BLOCK_BYTES, Hasher, Outline

Value = TypeVar("Value")
Block = bytes | bytearray | memoryview


class BlockWriter(ObjectWriter):
    """Writes an object a block at a time and in a thread; an object of one block costs one hop.

    While a block is hashed and written, the next one is taken in. So a writer has up to two blocks in memory.
    """

    def __init__(self, max_bytes: int | None) -> None:
        self.size = 0
        self._max_bytes = max_bytes
        self._hasher = Hasher()
        self._block = bytearray()
        self._behind = Behind()
        self._written = False
        self._ended = False

    @abstractmethod
    async def _in_thread(self, work: Callable[[], Value]) -> Value:
        """Do work of the store in a thread. Raises StorageUnavailable in place of the store's own errors."""

    @abstractmethod
    def _write_block(self, block: Block) -> None:
        """Write the next block; only the last one may be short, or empty where there is no other. In a thread."""

    @abstractmethod
    def _keep(self, outline: Outline) -> None:
        """Have what was written appear under its digest, durably. In a thread."""

    @abstractmethod
    def _discard(self) -> None:
        """Remove what was written and not kept. In a thread, and only once."""

    async def append(self, data: bytes) -> None:
        self._require_open()
        if self._max_bytes is not None and self.size + len(data) > self._max_bytes:
            raise ObjectTooLarge(self._max_bytes)
        self.size += len(data)
        rest = memoryview(data)
        while rest:
            if self._block or len(rest) < BLOCK_BYTES:
                room = BLOCK_BYTES - len(self._block)
                self._block += rest[:room]
                rest = rest[room:]
                if len(self._block) < BLOCK_BYTES:
                    return
                block, self._block = self._block, bytearray()
                await self._begin_block(block)
            else:
                # A whole block is taken as it is: copying it would cost as much as a tenth of hashing it.
                await self._begin_block(rest[:BLOCK_BYTES])
                rest = rest[BLOCK_BYTES:]

    async def commit(self, expected: str | None = None) -> str:
        self._require_open()
        await self._to_the_end(self._behind.settle())
        digest = await self._to_the_end(self._in_thread(lambda: self._end(expected)))
        self._ended = True
        return digest

    async def abort(self) -> None:
        self._ended = True
        if self._behind.is_busy or self._written:
            await uninterrupted(self._forget())

    async def _forget(self) -> None:
        await self._behind.forget()
        if self._written:
            self._written = False
            # Whoever aborts has an error of their own to tell, and the collector removes what cannot be removed now.
            with suppress(StorageUnavailable):
                await self._in_thread(self._discard)

    def _require_open(self) -> None:
        if self._ended:
            raise RuntimeError("the writer has ended")

    async def _begin_block(self, block: Block) -> None:
        """Begin to take the next block, once the one before is taken."""
        await self._to_the_end(self._behind.settle())
        self._behind.begin(self._in_thread(lambda: self._take_block(block)))

    async def _to_the_end(self, work: Awaitable[Value]) -> Value:
        """Work in a thread. The writer ends when that fails or is cancelled: what was written may then lack bytes."""
        try:
            return await uninterrupted(work)
        except BaseException:
            self._ended = True
            raise

    def _take_block(self, block: Block) -> None:
        self._hasher.update(block)
        self._written = True
        self._write_block(block)

    def _end(self, expected: str | None) -> str:
        if self._block or self.size == 0:
            self._take_block(self._block)
        outline = self._hasher.outline()
        if expected is not None and expected != outline.digest:
            raise DigestMismatch(expected, outline.digest)
        self._keep(outline)
        self._written = False
        return outline.digest
