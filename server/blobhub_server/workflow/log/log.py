"""Reading the event log: from its recent end in memory while that suffices, else from the database.

What is in memory is a copy of committed rows, so a reader cannot tell where its lines came from. It has what this server has
written; a log that another server has written to lately is read from the database.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence

from blobhub_server.db.engine import Database
from blobhub_server.db.notify import Doorbell
from blobhub_server.rpc.watch import MAX_BATCH
from blobhub_server.workflow.store import event as store
from blobhub_server.workflow.store.event import LoggedEvent

_TAILS = 4096
_TAIL_LINES = 256
_LATELY_SECONDS = 10.0
"""Longer than a ring of another server, and the word that a commit of this one is done, can take to pass each other by."""


class Tail:
    """The last lines of one log, without gaps: `first` … `last` in the log's own numbering."""

    __slots__ = ("first", "last", "lines")

    def __init__(self) -> None:
        self.lines: deque[LoggedEvent] = deque()
        self.first = 1
        self.last = 0

    def add(self, number: int, line: LoggedEvent) -> None:
        """Append a line. One that does not follow the last empties the tail, so that readers go to the database."""
        if number <= self.last:
            self.lines.clear()
            self.first = self.last + 1
            return
        if number != self.last + 1:
            self.lines.clear()
        self.lines.append(line)
        self.last = number
        if len(self.lines) > _TAIL_LINES:
            self.lines.popleft()
        self.first = number - len(self.lines) + 1

    def after(self, number: int, limit: int) -> list[LoggedEvent] | None:
        """The lines after a number; None when that reaches back further than the tail, or beyond it."""
        if not self.first - 1 <= number < self.last:
            return None
        start = number - self.first + 1
        return [self.lines[i] for i in range(start, min(start + limit, len(self.lines)))]


class EventLog:
    """The logs of all sessions, and of their executions, as watchers read them."""

    def __init__(self, db: Database, bell: Doorbell) -> None:
        self._db = db
        self._bell = bell
        self._tails: OrderedDict[str, Tail] = OrderedDict()
        self._shared: OrderedDict[str, float] = OrderedDict()
        bell.on_remote_ring(self._others_wrote)

    def _others_wrote(self, topic: str | None) -> None:
        """Another server has written to a log, or to any where it is None: what is in memory may lack that."""
        if topic is None:
            self._tails.clear()
            return
        self._tails.pop(topic, None)
        self._shared[topic] = time.monotonic()
        self._shared.move_to_end(topic)
        if len(self._shared) > _TAILS:
            self._shared.popitem(last=False)

    def publish(self, lines: Iterable[LoggedEvent]) -> None:
        """Take in lines that have just been committed, in order, and wake those who wait for them."""
        topics: dict[str, None] = {}
        for line in lines:
            self._tail(line.session_id).add(line.sequence, line)
            topics[line.session_id] = None
            if line.execution_id is not None:
                self._tail(line.execution_id).add(line.execution_sequence, line)
                topics[line.execution_id] = None
        for topic in topics:
            self._bell.ring(topic)

    async def session(self, session_id: str, after: int) -> Sequence[LoggedEvent]:
        """A session's lines after a `sequence`, at most `MAX_BATCH` of them."""
        held = self._held(session_id, after)
        if held is not None:
            return held
        async with self._db.read() as tx:
            return await store.of_session(tx, session_id, after, MAX_BATCH)

    async def execution(self, execution_id: str, after: int) -> Sequence[LoggedEvent]:
        """An execution's lines after an `execution_sequence`, at most `MAX_BATCH` of them."""
        held = self._held(execution_id, after)
        if held is not None:
            return held
        async with self._db.read() as tx:
            return await store.of_execution(tx, execution_id, after, MAX_BATCH)

    def _held(self, key: str, after: int) -> list[LoggedEvent] | None:
        tail = self._tails.get(key)
        if tail is None or time.monotonic() - self._shared.get(key, -_LATELY_SECONDS) < _LATELY_SECONDS:
            return None
        return tail.after(after, MAX_BATCH)

    def _tail(self, key: str) -> Tail:
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = Tail()
            if len(self._tails) > _TAILS:
                self._tails.popitem(last=False)
        else:
            self._tails.move_to_end(key)
        return tail
