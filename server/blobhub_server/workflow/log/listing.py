"""Pages of a session's log, for callers that page or poll instead of watching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blobhub_server.db.engine import Transaction
from blobhub_server.db.portion import MAX_PAGE_BYTES
from blobhub_server.workflow.store import event as store
from blobhub_server.workflow.store.event import LoggedEvent

_CHUNK = 128
"""How many lines one statement returns at most."""

_SPAN = 2_048
"""How many lines one statement looks at, at most, when it passes over some: in between, others have their turn."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a log: after the number `after`, and up to `last`.

    The log is an execution's, numbered by `execution_sequence`, or, where `execution_id` is empty, the session's, numbered
    by `session_sequence`. Both numberings are dense, and give the events of an execution in the same order.
    """

    session_id: str
    execution_id: str
    after: int
    last: int

    def number(self, line: LoggedEvent) -> int:
        """The number of a line in this log."""
        return line.execution_sequence if self.execution_id else line.session_sequence

    async def begin(self, tx: Transaction, session_sequence: int) -> Part:
        """The rest of the part, after a number of the session's log."""
        if not self.execution_id:
            return self._between(max(self.after, session_sequence), self.last)
        # The numbers of an execution's events in the session's log increase, so halving finds the place by a few reads of
        # one row each. An index for it would have to be written with every event.
        low, high = self.after, self.last
        while session_sequence and low < high:
            middle = (low + high + 1) // 2
            if await store.session_sequence_of(tx, self.execution_id, middle) <= session_sequence:
                low = middle
            else:
                high = middle - 1
        return self._between(low, self.last)

    def follow(self, number: int, *, descending: bool) -> Part:
        """The rest of the part, after a number in the order of reading."""
        return self._between(self.after, number - 1) if descending else self._between(number, self.last)

    def _first(self, count: int, *, descending: bool) -> Part:
        """The first `count` numbers of the part, in the order of reading."""
        if descending:
            return self._between(max(self.after, self.last - count), self.last)
        return self._between(self.after, min(self.last, self.after + count))

    def _between(self, after: int, last: int) -> Part:
        return Part(session_id=self.session_id, execution_id=self.execution_id, after=after, last=last)

    async def read(self, tx: Transaction, *, types: Sequence[str], descending: bool, limit: int) -> list[LoggedEvent]:
        """The first lines of these types, or of all for none: `limit` of them, or as many as fill a page and one more.

        A type may be rare, so lines are looked at in spans, and no statement takes long however many are passed over.
        """
        lines: list[LoggedEvent] = []
        rest, size = self, 0
        while rest.after < rest.last and len(lines) < limit:
            room = MAX_PAGE_BYTES - size
            span = rest._first(_SPAN, descending=descending)
            most = min(_CHUNK, limit - len(lines))
            found = await store.part(
                tx,
                span.session_id,
                span.execution_id,
                after=span.after,
                last=span.last,
                types=types,
                descending=descending,
                limit=most,
                max_bytes=max(room, 1),
            )
            lines += found
            size += sum(len(line.event) for line in found)
            if found and room <= 0:
                break
            end = span.after + 1 if descending else span.last
            cut = len(found) == most or size >= MAX_PAGE_BYTES
            rest = rest.follow(self.number(found[-1]) if found and cut else end, descending=descending)
        return lines
