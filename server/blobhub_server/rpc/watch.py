"""Watches replay a log from a position and then follow it live, without a gap, a repeat or a poll.

The messages of all watches have `repeated … = 1`, a batch of events, and `Progress progress = 2`; a test checks that. A log
stores each event as the bytes that watchers get, so a batch is packed without parsing. A batch is cut by bytes as well as by
count, so that no log outgrows a message.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from blobhub.v1 import session_pb2, watch_pb2

from blobhub_server.db.notify import Doorbell
from blobhub_server.db.portion import MAX_BATCH_BYTES, count_within
from blobhub_server.errors import SequenceOutOfRange
from blobhub_server.rpc.drain import Drain
from blobhub_server.rpc.transport_error import ShuttingDown
from blobhub_server.rpc.wire import repeated, to_timestamp

MAX_BATCH = 512
"""How many lines one read of a log returns at most."""


class Reader(Protocol):
    """Who follows a log; the watch keeps in `last_sequence` the number of the last line that it has handed over."""

    last_sequence: int | None


class Line(Protocol):
    """A line of a log: its type, and the message that watchers get, encoded."""

    @property
    def type(self) -> str:
        """What it is."""

    @property
    def event(self) -> bytes:
        """The message."""


AnyLine = TypeVar("AnyLine", bound=Line)


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing has happened for a while; everything up to `sequence` has been sent."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Watch(Generic[AnyLine]):
    """What is watched, and how.

    `topic` is the doorbell's. `read` answers at most `MAX_BATCH` lines after a number, and may end with the one that makes
    them `MAX_BATCH_BYTES` or more; `number` answers a line's number. `last` holds the types of line that end the log. When
    idle for `progress_seconds`, a watch sends a progress message.
    """

    topic: str
    read: Callable[[int], Awaitable[Sequence[AnyLine]]]
    number: Callable[[AnyLine], int]
    progress_seconds: float
    last: frozenset[str] = frozenset()

    async def stream(
        self, reader: Reader, bell: Doorbell, drain: Drain, after: int, *, replay_only: bool
    ) -> AsyncIterator[Sequence[AnyLine] | Idle]:
        """Yield batches of lines after a number, and `Idle` when nothing happens, until the log ends.

        Listening begins before the log is read, so no line is missed between the two. Each subscriber reads the log at its
        own pace, so a slow one delays nobody and needs no buffer. Raises ShuttingDown with the last number sent when the
        server drains.
        """
        async with bell.listen(self.topic) as listener:
            while True:
                lines, full = _one_batch(await self.read(after))
                if lines:
                    after = reader.last_sequence = self.number(lines[-1])
                    yield lines
                    if lines[-1].type in self.last:
                        return
                    # A read from memory may end before the log does, because other servers append to it too. They ring
                    # then, but a reader that only replays hears no ring; so it reads until nothing is left.
                    if replay_only or full:
                        continue
                if replay_only:
                    return
                if drain.draining:
                    raise ShuttingDown(after)
                if not await listener.wait(self.progress_seconds):
                    yield Idle(after)


def _one_batch(lines: Sequence[AnyLine]) -> tuple[Sequence[AnyLine], bool]:
    """The lines of a read that go into one message, and whether the log may go on after them.

    Those that are left out are read again.
    """
    if sum(len(line.event) for line in lines) < MAX_BATCH_BYTES:
        return lines, len(lines) >= MAX_BATCH
    return lines[: count_within((len(line.event) for line in lines), MAX_BATCH_BYTES)], True


def pack(batch: Sequence[Line] | Idle, now: datetime) -> bytes:
    """A watch's message, encoded."""
    if isinstance(batch, Idle):
        progress = watch_pb2.Progress(sequence=batch.sequence, time=to_timestamp(now))
        return session_pb2.WatchSessionResponse(progress=progress).SerializeToString()
    return repeated(1, (line.event for line in batch))


def check_range(after: int, last: int, *, first: int = 1) -> None:
    """Raise SequenceOutOfRange when a watch asks to resume after the log's end, or before what is kept of it."""
    if not first - 1 <= after <= last:
        raise SequenceOutOfRange(first, last)
