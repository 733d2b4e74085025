"""Sessions: the stateful contexts in which definitions run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from blobhub_server.errors import LimitExceeded
from blobhub_server.workflow.errors import SessionNotOpen
from blobhub_server.workflow.rules import limit

OPEN = "open"
CLOSING = "closing"
CLOSED = "closed"


@dataclass(slots=True)
class Session:
    """A session's record.

    `last_sequence` is the last number of its log, `executions` how many were started in it.
    """

    id: str
    org_id: str
    blob_id: str
    revision_id: str
    alias: str | None
    description: str
    state: str
    last_sequence: int
    executions: int
    create_time: datetime
    update_time: datetime


def require_open(state: str) -> None:
    """Raise SessionNotOpen unless the session is open."""
    if state != OPEN:
        raise SessionNotOpen(state)


def require_room(session: Session, executions: int, most: int) -> None:
    """Raise LimitExceeded when `executions`, the new one included, are too many for a session."""
    if executions > most:
        raise LimitExceeded(limit.EXECUTIONS, most, session.id)
