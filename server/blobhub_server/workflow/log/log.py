"""Reads the event log: from its tail in memory if that has the lines, else from the database.

A tail is a copy of committed rows, so a reader cannot tell where its lines came from. It has only the lines that this server
wrote; a log that another server has written to lately is read from the database. So are all logs while this server may have
lost what it runs: it was frozen, and the rings of those who took over are still on their way.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from blobhub_server.db.engine import Database
from blobhub_server.db.notify import Doorbell
from blobhub_server.db.portion import MAX_BATCH_BYTES
from blobhub_server.rpc.tail import Tail
from blobhub_server.rpc.watch import MAX_BATCH
from blobhub_server.turnstile import Party
from blobhub_server.workflow.store import event as store
from blobhub_server.workflow.store.event import LoggedEvent

_MAX_TAILS = 4096
_MAX_BYTES = 16 << 20
"""All tails together. An event that is in the session's tail and in the execution's counts in both."""
_LINE_BYTES = 1024
"""What a line counts for beside its event. Each is an object that a full collection of the garbage collector goes over."""
_LATELY_SECONDS = 10.0
"""For so long after a ring of another server, its tail is not used: commits of both may still be on their way here."""


def _size(line: LoggedEvent) -> int:
    return _LINE_BYTES + len(line.event)


class EventLog:
    """The logs of all sessions, and of their executions, as watchers read them."""

    def __init__(self, db: Database, bell: Doorbell) -> None:
        self._db = db
        self._bell = bell
        self._tails: OrderedDict[str, Tail[LoggedEvent]] = OrderedDict()
        self._size = 0
        self._shared: OrderedDict[str, float] = OrderedDict()
        self._all_shared = -_LATELY_SECONDS
        self._is_trusted: Callable[[], bool] = lambda: True
        bell.on_remote_ring(self._others_wrote)

    def trust_tails_while(self, holds: Callable[[], bool]) -> None:
        """Use tails, and add to them, only while `holds` says that no other server runs what this one does."""
        self._is_trusted = holds

    def drop_tails(self) -> None:
        """Drop all tails: others may have written to any log."""
        self._others_wrote(None)

    def _others_wrote(self, topic: str | None) -> None:
        """Drop the tail of a log, or all tails for None: another server has written lines that they may lack."""
        if topic is None:
            self._tails.clear()
            self._size = 0
            self._all_shared = time.monotonic()
            return
        self._drop(topic)
        self._shared[topic] = time.monotonic()
        self._shared.move_to_end(topic)
        if len(self._shared) > _MAX_TAILS:
            self._shared.popitem(last=False)

    def publish(self, lines: Iterable[LoggedEvent]) -> None:
        """Add lines that were just committed to the tails, and wake their listeners.

        Logs that another server has written to lately get no tail: its lines may come before these or after them.
        """
        added: dict[str, list[tuple[int, LoggedEvent]]] = {}
        for committed in lines:
            line = replace(committed, record=None)  # It holds the event's values once more, and no reader gets it.
            added.setdefault(line.session_id, []).append((line.session_sequence, line))
            if line.execution_id is not None:
                added.setdefault(line.execution_id, []).append((line.execution_sequence, line))
        for topic, numbered in added.items():
            if self._is_trusted() and not self._shared_lately(topic):
                self._add(topic, numbered)
            self._bell.ring(topic)

    async def read_session(self, session_id: str, after: int, party: Party) -> Sequence[LoggedEvent]:
        """A session's lines after a `session_sequence`: as many as a batch has, or, from memory, as there are."""
        lines = self._read_tail(session_id, after)
        if lines is not None:
            return lines
        async with self._db.scan(party, patient=True) as tx:
            return await store.page_of_session(tx, session_id, after, limit=MAX_BATCH, max_bytes=MAX_BATCH_BYTES)

    async def read_execution(self, execution_id: str, after: int, party: Party) -> Sequence[LoggedEvent]:
        """An execution's lines after an `execution_sequence`, likewise."""
        lines = self._read_tail(execution_id, after)
        if lines is not None:
            return lines
        async with self._db.scan(party, patient=True) as tx:
            return await store.page_of_execution(tx, execution_id, after, limit=MAX_BATCH, max_bytes=MAX_BATCH_BYTES)

    def _read_tail(self, key: str, after: int) -> list[LoggedEvent] | None:
        tail = self._tails.get(key)
        if tail is None or not self._is_trusted() or self._shared_lately(key):
            return None
        self._tails.move_to_end(key)
        return tail.read_after(after, MAX_BATCH)

    def _shared_lately(self, key: str) -> bool:
        """Whether another server has rung for a log lately, or may have rung for it unheard."""
        rung = max(self._shared.get(key, self._all_shared), self._all_shared)
        return time.monotonic() - rung < _LATELY_SECONDS

    def _add(self, key: str, numbered: Iterable[tuple[int, LoggedEvent]]) -> None:
        """Add lines to a log's tail; evict the tails that nobody has used for longest until there is room."""
        tail = self._tails.setdefault(key, Tail(_size))
        self._tails.move_to_end(key)
        self._size -= tail.size
        for number, line in numbered:
            tail.add(number, line)
        self._size += tail.size
        while len(self._tails) > _MAX_TAILS or self._size > _MAX_BYTES:
            self._drop(next(iter(self._tails)))

    def _drop(self, key: str) -> None:
        tail = self._tails.pop(key, None)
        if tail is not None:
            self._size -= tail.size
