"""Outlines: the digests of an object's blocks, so that any part of it can be verified by itself.

An object's digest cannot verify a range of it. So an object of more than one block is kept with its outline: its own digest
and size, the SHA-256 of each block, and the SHA-256 of all that. An object of one block needs no outline: its digest is that
of its block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blobhub_server.errors import ContentLost

BLOCK_BYTES = 1 << 20
"""How much is hashed, written and read at a time. Never change it: stored outlines depend on it."""
_HASH_BYTES = 32
_SIZE_BYTES = 8


@dataclass(frozen=True, slots=True)
class Outline:
    """An object's digest, its size in bytes, and the digest of each block. Only the last block may be short."""

    digest: str
    size: int
    blocks: Sequence[bytes]

    def require(self, index: int, block: bytes) -> None:
        """Raise ContentLost unless these are the bytes of a block."""
        if hashlib.sha256(block).digest() != self.blocks[index]:
            raise ContentLost(self.digest)

    def cover(self, offset: int, length: int | None) -> Iterator[tuple[int, slice]]:
        """The blocks that hold a range, by index, and which part of each is in it."""
        end = self.size if length is None else min(self.size, offset + length)
        while offset < end:
            index, start = divmod(offset, BLOCK_BYTES)
            stop = min(BLOCK_BYTES, start + end - offset)
            yield index, slice(start, stop)
            offset += stop - start

    def encode(self) -> bytes:
        """The bytes to store: digest, size (big-endian), blocks, and the SHA-256 of these."""
        body = bytes.fromhex(self.digest) + self.size.to_bytes(_SIZE_BYTES, "big") + b"".join(self.blocks)
        return body + hashlib.sha256(body).digest()

    @classmethod
    def decode(cls, digest: str, data: bytes) -> Outline:
        """What `encode` made for a digest. Raises ContentLost for anything else."""
        body, check = data[:-_HASH_BYTES], data[-_HASH_BYTES:]
        head = _HASH_BYTES + _SIZE_BYTES
        if hashlib.sha256(body).digest() != check or body[:_HASH_BYTES].hex() != digest:
            raise ContentLost(digest)
        blocks = [body[at : at + _HASH_BYTES] for at in range(head, len(body), _HASH_BYTES)]
        return cls(digest=digest, size=int.from_bytes(body[_HASH_BYTES:head], "big"), blocks=blocks)


class Hasher:
    """Makes the outline of an object from its blocks, as they come."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()
        self._blocks: list[bytes] = []
        self._size = 0

    def update(self, block: bytes | bytearray | memoryview) -> None:
        """Take the next block; only the last one may be short."""
        self._whole.update(block)
        self._blocks.append(hashlib.sha256(block).digest())
        self._size += len(block)

    def outline(self) -> Outline:
        """The outline of all blocks taken; an object without bytes has one empty block."""
        return Outline(digest=self._whole.hexdigest(), size=self._size, blocks=self._blocks or [self._whole.digest()])
