"""Ends open streams whose callers lose their access, or do not read.

A stream is admitted when it is opened, and again a moment later, because its key may have come from the cache. Every change
that takes access away rings a bell; then all open streams are admitted again, and a stream that is refused ends with that
error. Expired keys and tokens are looked for every second, and so are answers that have waited too long for their readers.
All this costs a running stream next to nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Protocol

import structlog

from blobhub_server.background import in_background
from blobhub_server.clock import Clock
from blobhub_server.db.notify import Doorbell
from blobhub_server.errors import BlobHubError, StorageUnavailable
from blobhub_server.rpc.port import ORDINARY, PortBounds
from blobhub_server.rpc.transport_error import StreamUnread
from blobhub_server.rpc.unread import UnreadAnswers

log = structlog.get_logger()

TICK_SECONDS = 1.0
MAX_CONCURRENT = 8
"""How many streams are rechecked at the same time. Each may take a connection of the database."""


class Admission(Protocol):
    """The admission of a call."""

    @property
    def expire_time(self) -> datetime | None:
        """When the key or token that the call came with stops working."""

    @property
    def last_sequence(self) -> int | None:
        """The number of the last event that the stream has been given; None for what is no watch, or has none yet."""

    async def recheck(self) -> None:
        """Raise the error that the same call would be refused with now."""


class Stream:
    """An open stream. `sending_since` is when the answer was handed to gRPC that waits for the client to take it, if any."""

    __slots__ = ("_task", "admission", "error", "sending_since")

    def __init__(self, admission: Admission) -> None:
        task = asyncio.current_task()
        assert task is not None, "gRPC runs handlers in tasks"
        self._task = task
        self.admission = admission
        self.error: BlobHubError | None = None
        self.sending_since: float | None = None

    def end(self, error: BlobHubError) -> None:
        """End the stream with an error, whatever it is doing.

        An answer that waits for the client stays with gRPC, and the status follows it: a client that reads again gets both.
        """
        if self.error is None:
            self.error = error
            self._task.cancel()

    def was_cancelled_by_us(self) -> bool:
        """Whether a cancellation came from `end`; if so, it is undone, so that a status can be sent."""
        if self.error is None:
            return False
        self._task.uncancel()
        return True


class Guard:
    """Watches over the open streams of a port."""

    def __init__(
        self, bell: Doorbell, clock: Clock, topic: str, *, max_unread_seconds: float, bounds: PortBounds = ORDINARY
    ) -> None:
        """`topic` is what the bell is rung for when access is lost; no answer waits longer than `max_unread_seconds`."""
        self._bell = bell
        self._clock = clock
        self._topic = topic
        self._max_unread_seconds = max_unread_seconds
        self.unread = UnreadAnswers(
            max_seconds=max_unread_seconds,
            max_bytes_per_sender=bounds.max_unread_bytes_per_sender,
            max_bytes=bounds.max_unread_bytes,
        )
        self._streams: set[Stream] = set()
        self._unsure: set[Stream] = set()

    @contextmanager
    def watch(self, admission: Admission) -> Iterator[Stream]:
        """Guard a stream until the block is left. The block raises the error that the stream is ended with."""
        stream = Stream(admission)
        self._streams.add(stream)
        # Access that was lost between the admission and here has rung its bell already; a key may come from the cache.
        self._unsure.add(stream)
        try:
            yield stream
        except asyncio.CancelledError:
            if stream.was_cancelled_by_us() and stream.error is not None:
                raise stream.error from None
            raise
        finally:
            self._streams.discard(stream)
            self._unsure.discard(stream)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch until the block is left."""
        async with in_background(self._watch(), "guard"):
            yield

    async def _watch(self) -> None:
        async with self._bell.listen(self._topic) as listener:
            while True:
                rung = await listener.wait(TICK_SECONDS)
                self._end_unread()
                await self.unread.end_connections()
                doubtful = list(self._streams) if rung else [*self._unsure, *self._expired()]
                for start in range(0, len(doubtful), MAX_CONCURRENT):
                    await asyncio.gather(*map(self._recheck, doubtful[start : start + MAX_CONCURRENT]))

    def _end_unread(self) -> None:
        before = asyncio.get_running_loop().time() - self._max_unread_seconds
        for stream in self._streams:
            if stream.sending_since is not None and stream.sending_since < before:
                stream.end(StreamUnread(stream.admission.last_sequence))

    def _expired(self) -> list[Stream]:
        now = self._clock()
        ends = ((stream, stream.admission.expire_time) for stream in self._streams)
        return [stream for stream, expire_time in ends if expire_time is not None and expire_time <= now]

    async def _recheck(self, stream: Stream) -> None:
        """Admit a stream again, or end it. When that cannot be decided now, try again at the next tick."""
        self._unsure.discard(stream)
        try:
            await stream.admission.recheck()
        except BlobHubError as error:
            if isinstance(error, StorageUnavailable) or error.code == "UNAVAILABLE":
                self._unsure.add(stream)
            else:
                stream.end(error)
        except Exception:
            log.exception("stream_not_rechecked")
            self._unsure.add(stream)
