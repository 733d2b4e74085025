"""Open streams, and their end when the caller is no longer allowed.

A stream is admitted when it is opened, and once more a moment later: a key may have been believed for too long. Whatever
takes access away rings a bell; then every open stream is admitted again, and one that would not be is ended with the error
that says so. What ends by itself (a key or token that expires) is looked for every second. This costs a stream nothing
while it runs.
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
from blobhub_server.errors import BlobHubError

log = structlog.get_logger()

TICK_SECONDS = 1.0
MAX_CONCURRENT = 8
"""How many streams are admitted again at the same time: as many as a database has connections to spare."""

MAX_UNREAD_SECONDS = 2.0
"""How long a stream may take to notice its end while the client reads nothing; then the call is cancelled."""


class Admission(Protocol):
    """What let a call in."""

    @property
    def expire_time(self) -> datetime | None:
        """When the key or token that the call came with stops working."""

    async def recheck(self) -> None:
        """Raise what a call like this would be refused with now."""


class Stream:
    """An open stream. `sending` is true while the call is in gRPC's hands, waiting for the client to take an answer."""

    __slots__ = ("_task", "admission", "error", "sending")

    def __init__(self, admission: Admission) -> None:
        task = asyncio.current_task()
        assert task is not None, "gRPC runs handlers in tasks"
        self._task = task
        self.admission = admission
        self.error: BlobHubError | None = None
        self.sending = False

    def end(self, error: BlobHubError) -> None:
        """End the stream with an error, wherever it is."""
        if self.error is not None:
            return
        self.error = error
        if self.sending:
            asyncio.get_running_loop().call_later(MAX_UNREAD_SECONDS, self._cancel_unread)
        else:
            self._task.cancel()

    def _cancel_unread(self) -> None:
        if self.sending and not self._task.done():
            self._task.cancel()

    def raise_if_ended(self) -> None:
        """Raise the error that the stream was ended with, if it was."""
        if self.error is not None:
            raise self.error

    def was_cancelled_by_us(self) -> bool:
        """Whether a cancellation that has arrived is the one of `end`; takes it back if so.

        One that interrupts a write stays: gRPC sends no status while it holds a message that the client does not take.
        """
        if self.error is None or self.sending:
            return False
        self._task.uncancel()
        return True


class Guard:
    """Watches over the open streams of a server."""

    def __init__(self, bell: Doorbell, clock: Clock, topic: str) -> None:
        self._bell = bell
        self._clock = clock
        self._topic = topic
        self._streams: set[Stream] = set()
        self._unsure: set[Stream] = set()

    @contextmanager
    def watch(self, admission: Admission) -> Iterator[Stream]:
        """Around a stream: raises, from within, the error that it is ended with."""
        stream = Stream(admission)
        self._streams.add(stream)
        # What was taken away between the admission and here, or is still believed, rings no bell any more.
        self._unsure.add(stream)
        try:
            yield stream
        except asyncio.CancelledError:
            if stream.was_cancelled_by_us():
                stream.raise_if_ended()
            raise
        finally:
            self._streams.discard(stream)
            self._unsure.discard(stream)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch for as long as this is entered."""
        async with in_background(self._watch(), "guard"):
            yield

    async def _watch(self) -> None:
        async with self._bell.listen(self._topic) as ringing:
            while True:
                rung = await ringing.wait(TICK_SECONDS)
                doubtful = list(self._streams) if rung else [*self._unsure, *self._expired()]
                for start in range(0, len(doubtful), MAX_CONCURRENT):
                    await asyncio.gather(*map(self._recheck, doubtful[start : start + MAX_CONCURRENT]))

    def _expired(self) -> list[Stream]:
        now = self._clock()
        ends = ((stream, stream.admission.expire_time) for stream in self._streams)
        return [stream for stream, expire_time in ends if expire_time is not None and expire_time <= now]

    async def _recheck(self, stream: Stream) -> None:
        """Admit a stream again, or end it. What cannot be told now is looked at again at the next tick."""
        self._unsure.discard(stream)
        try:
            await stream.admission.recheck()
        except BlobHubError as error:
            if error.code == "UNAVAILABLE":
                self._unsure.add(stream)
            else:
                stream.end(error)
        except Exception:
            log.exception("stream_not_rechecked")
            self._unsure.add(stream)
