"""Sessions: the stateful contexts in which definitions run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from blobhub_server.errors import LimitExceeded
from blobhub_server.workflow.errors import SessionNotOpen
from blobhub_server.workflow.rules import limit

OPEN = "open"
CLOSING = "closing"
CLOSED = "closed"

EVENT_INTERVAL = timedelta(microseconds=1)
"""How far apart the events of a log are at least. A store of sessions says the same in SQL."""

NO_EVENT_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""The `last_event_time` of an empty log."""


@dataclass(slots=True)
class Session:
    """A session's record.

    `last_session_sequence` and `last_event_time` are the number and the time of the last event of its log, `executions` is
    how many were started in it.
    """

    id: str
    organization_id: str
    blob_id: str
    revision_id: str
    alias: str | None
    description: str
    state: str
    last_session_sequence: int
    last_event_time: datetime
    executions: int
    create_time: datetime
    update_time: datetime

    @property
    def first_session_sequence(self) -> int:
        """The number of the first event that the log keeps; 0 while it is empty. Nothing is ever cut off a log."""
        return min(1, self.last_session_sequence)

    def advance(self, at: datetime) -> None:
        """Take the next number and time of the log, for an event that happened at `at`.

        Times increase, although the clocks of servers differ and may be set back.
        """
        self.last_session_sequence += 1
        self.last_event_time = max(at, self.last_event_time + EVENT_INTERVAL)


def require_open(state: str) -> None:
    """Raise SessionNotOpen unless the session is open."""
    if state != OPEN:
        raise SessionNotOpen(state)


def require_room(session: Session, executions: int, most: int) -> None:
    """Raise LimitExceeded when `executions`, the new one included, are too many for a session."""
    if executions > most:
        raise LimitExceeded(limit.EXECUTIONS, most, session.id)
