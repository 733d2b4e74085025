"""How much somebody may have under way: a call that waits for its turn, at the database say, holds its request meanwhile.

Calls that are answered with streams are counted by themselves (`open_streams.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from blobhub_server.errors import Overloaded
from blobhub_server.rpc.room import Sender

MAX_CALLS = 1_000
"""How many calls of one sender are under way at once."""
MAX_BYTES = 64 << 20
"""How many bytes their requests have together, as they came in."""


class UnderWay:
    """Counts the calls under way on a port, by caller; of those whom nothing identifies, by address."""

    def __init__(self, max_all_bytes: int | None = None) -> None:
        """All requests together have so many bytes at most, if that is given."""
        self._max_all_bytes = max_all_bytes
        self._all_bytes = 0
        self._calls: Counter[Sender] = Counter()
        self._bytes: Counter[Sender] = Counter()

    @contextmanager
    def one_more(self, sender: Sender, size_bytes: int) -> Iterator[None]:
        """Count a call with a request of that size until the block is left. Raises Overloaded."""
        if self._calls[sender] >= MAX_CALLS or self._bytes[sender] + size_bytes > MAX_BYTES:
            raise Overloaded
        if self._max_all_bytes is not None and self._all_bytes + size_bytes > self._max_all_bytes:
            raise Overloaded
        self._all_bytes += size_bytes
        self._calls[sender] += 1
        self._bytes[sender] += size_bytes
        try:
            yield
        finally:
            self._all_bytes -= size_bytes
            self._calls[sender] -= 1
            self._bytes[sender] -= size_bytes
            if not self._calls[sender]:
                del self._calls[sender], self._bytes[sender]
