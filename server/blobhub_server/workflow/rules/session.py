"""Sessions: the stateful contexts in which definitions run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
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

COUNT_BYTES = 256 << 10
"""What a log may grow by before its organization's is counted anew. A smaller step would lock the organization's row more
often; a larger one would leave more uncounted, in each session that is not closed."""

SESSION_EVENT_BYTES = 500
"""What an event of the session itself counts for. They are small and alike, and numbered before they are encoded."""

NO_EVENT_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""The `last_event_time` of an empty log."""


@dataclass(slots=True)
class Session:
    """A session's record.

    `last_session_sequence` and `last_event_time` are the number and the time of the last event of its log, `executions` is
    how many were started in it. `closes_itself` says that it was opened for one invocation, and is closed when nothing runs
    in it any more. `log_bytes` is how large its log is, `counted_log_bytes` how much of that is counted for its
    organization.
    """

    id: str
    organization_id: str
    blob_id: str
    revision_id: str
    alias: str | None
    description: str
    state: str
    closes_itself: bool
    last_session_sequence: int
    last_event_time: datetime
    executions: int
    log_bytes: int
    counted_log_bytes: int
    create_time: datetime
    update_time: datetime

    @property
    def first_session_sequence(self) -> int:
        """The number of the first event that the log keeps; 0 while it is empty. Nothing is ever cut off a log."""
        return min(1, self.last_session_sequence)

    @property
    def closes_when_idle(self) -> bool:
        """Whether it is closed with the end of the last execution in it."""
        return self.state == CLOSING or (self.state == OPEN and self.closes_itself)

    def advance(self, at: datetime) -> None:
        """Take the next number and time of the log, for an event that happened at `at`.

        Times increase, although the clocks of servers differ and may be set back.
        """
        self.last_session_sequence += 1
        self.last_event_time = max(at, self.last_event_time + EVENT_INTERVAL)


def to_count(log_bytes: int, counted_log_bytes: int, *, closed: bool) -> int:
    """How much a log has grown by that is to be counted now for its organization: nothing until that is enough.

    What is left when the session is closed is counted with the end of the log, for no more will come.
    """
    uncounted = log_bytes - counted_log_bytes
    return uncounted if closed or uncounted >= COUNT_BYTES else 0


def count_growth(sessions: Iterable[Session]) -> Counter[str]:
    """Note on sessions that their logs are counted as far as that is due; return what to count, by organization."""
    grown: Counter[str] = Counter()
    for session in sessions:
        size = to_count(session.log_bytes, session.counted_log_bytes, closed=session.state == CLOSED)
        if size:
            session.counted_log_bytes += size
            grown[session.organization_id] += size
    return grown


def require_open(state: str) -> None:
    """Raise SessionNotOpen unless the session is open."""
    if state != OPEN:
        raise SessionNotOpen(state)


def require_room(session: Session, executions: int, most: int) -> None:
    """Raise LimitExceeded when `executions`, the new one included, are too many for a session."""
    if executions > most:
        raise LimitExceeded(limit.EXECUTIONS, most, session.id)
