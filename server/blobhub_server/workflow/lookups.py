"""What the members of a batch need to know, each thing looked up once for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from blobhub_server.errors import BlobHubError, StorageUnavailable

Value = TypeVar("Value")


class Lookups:
    """Remembers what was looked up in one transaction, and what was refused there."""

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}

    async def once(self, key: Hashable, look: Callable[[], Awaitable[Value]]) -> Value:
        """What `look` returns for a key, the first time. Raises what it raised, each time."""
        if key not in self._found:
            try:
                self._found[key] = await look()
            except StorageUnavailable:
                raise
            except BlobHubError as error:
                self._found[key] = error
        found: Value | BlobHubError = self._found[key]
        if isinstance(found, BlobHubError):
            raise found
        return found
