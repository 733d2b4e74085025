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

    `owner` is the server that runs its executions, `fence` counts changes of ownership: a write that carries an older
    fence is refused. `last_sequence` is the last number of its log, `executions` how many were started in it.
    """

    id: str
    org_id: str
    blob_id: str
    revision_id: str
    alias: str | None
    description: str
    state: str
    owner: str | None
    fence: int
    last_sequence: int
    executions: int
    create_time: datetime
    update_time: datetime


def require_open(state: str) -> None:
    """Raise SessionNotOpen unless the session takes new things."""
    if state != OPEN:
        raise SessionNotOpen(state)


def require_room(session: Session, most: int) -> None:
    """Raise LimitExceeded when more executions were started in the session, the new ones included, than may be."""
    if session.executions > most:
        raise LimitExceeded(limit.EXECUTIONS, most, session.id)
