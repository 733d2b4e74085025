"""A watch: replay from a position, then follow live, without a gap, a repeat or a poll."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from blobhub_server.db.notify import Doorbell
from blobhub_server.errors import ShuttingDown
from blobhub_server.rpc.drain import Drain
from blobhub_server.workflow.runtime.log import BATCH
from blobhub_server.workflow.store.event import LoggedEvent


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing has happened for a while; everything up to `sequence` has been sent."""

    sequence: int


Read = Callable[[int], Awaitable[Sequence[LoggedEvent]]]
Number = Callable[[LoggedEvent], int]

LAST_OF_EXECUTION = frozenset({"flow.exited", "flow.error", "flow.stopped"})
LAST_OF_SESSION = frozenset({"session_closed"})


@dataclass(frozen=True, slots=True)
class Watch:
    """What is watched, and how.

    `topic` is the doorbell's, `read` answers the lines after a number, `number` tells a line's number, `last` holds the
    types that end the log, `progress_seconds` is the idle time after which a sign of life is sent.
    """

    topic: str
    read: Read
    number: Number
    last: frozenset[str]
    progress_seconds: float

    async def stream(
        self, bell: Doorbell, drain: Drain, after: int, *, follow: bool
    ) -> AsyncIterator[Sequence[LoggedEvent] | Idle]:
        """Yield batches of lines after a number, and signs of life, until the log ends.

        The bell is armed before the log is read, so that nothing can fall between the two. Reading at the subscriber's
        own pace from the log means that a slow one holds up nobody and needs no buffer. Raises ShuttingDown with the
        last number sent when the server drains.
        """
        async with bell.listen(self.topic) as ringing:
            while True:
                lines = await self.read(after)
                if lines:
                    yield lines
                    after = self.number(lines[-1])
                    if lines[-1].type in self.last:
                        return
                    if len(lines) == BATCH:
                        continue
                if not follow:
                    return
                if drain.draining:
                    raise ShuttingDown(after)
                if not await ringing.wait(self.progress_seconds):
                    yield Idle(after)
