"""The last lines of the logs of firings that are watched here, in memory: thousands may fire in a second, and each watcher
would read them all from the database."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from blobhub_server.db.notify import Doorbell
from blobhub_server.rpc.tail import Tail
from blobhub_server.scheduler.rules.firing import Firing

_MAX_TAILS = 32
_FIRING_BYTES = 2048
"""What a firing counts for, beside its message."""


@dataclass(slots=True)
class Line:
    """A line of a log of firings: a firing as it was then, its number being the line's.

    `event` is the message that watchers get, encoded, once the first of them has made it.
    """

    firing: Firing
    event: bytes | None = None


def topic(blob_id: str) -> str:
    """The doorbell that is rung when a blob's log of firings has grown."""
    return f"firings {blob_id}"


class Tails:
    """The tails of those logs that somebody listens to on this server."""

    def __init__(self, bell: Doorbell) -> None:
        self._bell = bell
        self._tails: OrderedDict[str, Tail[Line]] = OrderedDict()

    def is_watched(self, blob_id: str) -> bool:
        """Whether somebody would read a blob's tail."""
        return self._bell.is_heard(topic(blob_id))

    def add(self, lines: Iterable[Firing]) -> None:
        """Add lines that were just committed to the tails of their blobs.

        Lines that another server has written before them are a gap, and a tail begins anew after it.
        """
        for firing in lines:
            blob_id = firing.blob_id
            if not self.is_watched(blob_id):
                self._tails.pop(blob_id, None)
                continue
            tail = self._tails.get(blob_id)
            if tail is None:
                tail = self._tails[blob_id] = Tail(_size)
                if len(self._tails) > _MAX_TAILS:
                    self._tails.popitem(last=False)
            tail.add(firing.sequence, Line(firing))

    def read(self, blob_id: str, schedule_id: str, after: int, limit: int) -> list[Line]:
        """Lines of a blob's log, or those of one schedule, after a number; none where the database has to be asked."""
        tail = self._tails.get(blob_id)
        found = tail.read_after(after, limit) if tail is not None else None
        return [line for line in found or () if schedule_id in ("", line.firing.schedule_id)]


def _size(line: Line) -> int:
    return _FIRING_BYTES + len(line.firing.message)
