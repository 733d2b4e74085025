"""Answers that wait for their readers: how much of them is kept, and what ends who does not read.

gRPC takes an answer whole, copies it, and keeps it until the client's windows let it go; nothing takes it back, not even the
end of the call. So what is handed over is counted until gRPC is done with it. A sender with much unread gets no further
answers, and a connection that takes none is ended.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from blobhub_server.bounded_log import BoundedLog
from blobhub_server.errors import Overloaded
from blobhub_server.rpc.connection import end_connection
from blobhub_server.rpc.room import Sender

SMALL_BYTES = 4 << 10
"""Answers of so many bytes are not counted: the calls that a caller has under way are."""
LARGE_BYTES = 64 << 10
"""A larger answer is refused where it would be too much. Others are few enough: the calls after them are refused."""
MAX_BYTES_PER_SENDER = 16 << 20
"""How much one sender may leave unread. In memory it is about twice that: gRPC copies a message."""
MAX_BYTES = 96 << 20
"""The same for all senders together."""
MAX_LEFT_BYTES = 4 << 20
"""A connection on which no more waits is left alone: its client may be slow, or a proxy for one that is."""
EVICTION_SECONDS = 1.0
"""Where all senders have as much unread as they may, connections are ended whose answers have waited for so long."""


@dataclass(slots=True, eq=False)
class Answer:
    """What one call has handed to gRPC and nobody has read yet: its bytes, 0 for nothing, and since when."""

    sender: Sender
    peer: str
    size: int = 0
    since: float = 0.0


class UnreadAnswers:
    """Counts the answers of one port that wait for their readers."""

    def __init__(self, *, max_seconds: float, max_bytes_per_sender: int | None = None, max_bytes: int | None = None) -> None:
        """Connections whose answers wait longer than that are ended."""
        self._max_seconds = max_seconds
        self._max_bytes_per_sender = max_bytes_per_sender or MAX_BYTES_PER_SENDER
        self._max_bytes = max_bytes or MAX_BYTES
        self._waiting: set[Answer] = set()
        self._bytes: Counter[Sender] = Counter()
        self._total_bytes = 0
        self._log = BoundedLog("connection_ended_unread")

    @property
    def total_bytes(self) -> int:
        """How much waits."""
        return self._total_bytes

    def require_room(self, sender: Sender) -> None:
        """Raise Overloaded when a sender has too much unread to be answered anything more."""
        unread = self._bytes.get(sender, 0)
        if unread >= self._max_bytes_per_sender or (unread and self._total_bytes >= self._max_bytes):
            raise Overloaded

    def hold(self, answer: Answer, size: int, *, refusable: bool = True) -> None:
        """Count what is handed over now. Raises Overloaded for a large answer that would be too much.

        One that is not `refusable` is counted all the same.
        """
        if size <= SMALL_BYTES:
            return
        unread = self._bytes.get(answer.sender, 0)
        too_much = unread + size > self._max_bytes_per_sender or self._total_bytes + size > self._max_bytes
        if refusable and too_much and size > LARGE_BYTES:
            raise Overloaded
        self._waiting.add(answer)
        self._bytes[answer.sender] += size
        self._total_bytes += size
        answer.size, answer.since = size, asyncio.get_running_loop().time()

    def hold_until_done(self, answer: Answer, size: int, *, refusable: bool) -> None:
        """The same for the one answer of a call, whose task gRPC ends when it has sent it."""
        if size <= SMALL_BYTES:
            return
        self.hold(answer, size, refusable=refusable)
        task = asyncio.current_task()
        assert task is not None, "gRPC runs handlers in tasks"
        task.add_done_callback(lambda _: self.release(answer))

    def release(self, answer: Answer) -> None:
        """Note that gRPC does not hold it any more."""
        if not answer.size:
            return
        self._waiting.discard(answer)
        self._total_bytes -= answer.size
        self._bytes[answer.sender] -= answer.size
        if not self._bytes[answer.sender]:
            del self._bytes[answer.sender]
        answer.size = 0

    async def end_connections(self) -> None:
        """End connections whose clients do not read what they have asked for."""
        # Streams are told first, by their status, and their connection is given as long again.
        for peer, size in self._unread_since(2 * self._max_seconds).items():
            if size > MAX_LEFT_BYTES:
                await self._end(peer, size)
        # Those that hold the most go first, until half of it is free. One that has not held it for long enough may yet be
        # read, and goes the next time if it is not: no smaller one goes in its place.
        most = self._max_bytes
        to_free = self._total_bytes - most // 2 if self._total_bytes > most - MAX_LEFT_BYTES else 0
        long = self._unread_since(EVICTION_SECONDS)
        for peer, size in self._unread_since(0).most_common():
            if to_free <= 0:
                return
            to_free -= size
            if peer in long:
                await self._end(peer, size)

    def _unread_since(self, seconds: float) -> Counter[str]:
        """How many bytes have waited for so long, by peer."""
        before = asyncio.get_running_loop().time() - seconds
        found: Counter[str] = Counter()
        for answer in self._waiting:
            if answer.since <= before:
                found[answer.peer] += answer.size
        return found

    async def _end(self, peer: str, size: int) -> None:
        if await asyncio.to_thread(end_connection, peer):
            self._log.write("warning", "unread", peer=peer, unread_bytes=size)
