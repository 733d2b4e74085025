"""What an object store does: keeps bytes under the digest of what they are."""

from __future__ import annotations

from typing import Protocol


class ObjectNotFound(Exception):
    """There are no bytes of that digest."""


class CorruptObject(Exception):
    """What is stored is not what the digest says. Nothing of it is handed out."""


class ObjectStore(Protocol):
    """Content-addressed bytes. Digests are SHA-256 in lower-case hex."""

    async def put(self, data: bytes) -> str:
        """Keep bytes; return their digest once they are durable. Keeping the same bytes again changes nothing."""

    async def get(self, digest: str) -> bytes:
        """The bytes of a digest, verified. Raises ObjectNotFound, CorruptObject."""

    async def exists(self, digest: str) -> bool:
        """Whether there are bytes of a digest."""

    async def probe(self) -> None:
        """Write something, read it back and delete it again. Raises OSError, CorruptObject."""
