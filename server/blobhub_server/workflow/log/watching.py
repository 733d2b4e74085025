"""The watches of sessions and executions."""

from __future__ import annotations

from blobhub_server.rpc.watch import Watch
from blobhub_server.turnstile import Party
from blobhub_server.workflow.interpreter import ENDINGS
from blobhub_server.workflow.log.log import EventLog
from blobhub_server.workflow.store.event import LoggedEvent

LAST_OF_SESSION = frozenset({"session_closed"})


def watch_session(log: EventLog, session_id: str, party: Party, progress_seconds: float) -> Watch[LoggedEvent]:
    """A watch of a session's log, numbered by `session_sequence`."""
    return Watch(
        topic=session_id,
        read=lambda after: log.read_session(session_id, after, party),
        number=lambda line: line.session_sequence,
        last=LAST_OF_SESSION,
        progress_seconds=progress_seconds,
    )


def watch_execution(log: EventLog, execution_id: str, party: Party, progress_seconds: float) -> Watch[LoggedEvent]:
    """A watch of an execution's log, numbered by `execution_sequence`."""
    return Watch(
        topic=execution_id,
        read=lambda after: log.read_execution(execution_id, after, party),
        number=lambda line: line.execution_sequence,
        last=ENDINGS,
        progress_seconds=progress_seconds,
    )
