"""Events of a session itself, appended in the transaction of the change that they report."""

from __future__ import annotations

from datetime import datetime

from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import LimitExceeded, PermissionDenied
from blobhub_server.rpc.wire import to_timestamp
from blobhub_server.workflow.log.budget import LogBudget
from blobhub_server.workflow.log.encode import encode_session_event
from blobhub_server.workflow.log.log import EventLog
from blobhub_server.workflow.rules.session import Session, to_count
from blobhub_server.workflow.rules.session import require_open as rule
from blobhub_server.workflow.store import event as event_store
from blobhub_server.workflow.store import session as session_store
from blobhub_server.workflow.store.event import LoggedEvent


def session_line(
    payload: str, fields: dict[str, str], *, event_id: str, session_id: str, session_sequence: int, at: datetime
) -> LoggedEvent:
    """The line of an event of the session itself. `payload` is the name of the payload's field, which is its type."""
    event = encode_session_event(
        payload, fields, event_id=event_id, session_id=session_id, session_sequence=session_sequence, at=to_timestamp(at)
    )
    return LoggedEvent(
        session_id=session_id,
        session_sequence=session_sequence,
        execution_id=None,
        execution_sequence=0,
        type=payload,
        create_time=at,
        event=event,
        record=None,
    )


class SessionEvents:
    """Appends the events of sessions themselves."""

    def __init__(self, host: Host, log: EventLog) -> None:
        self._host = host
        self._log = log
        self._budget = LogBudget(host.limits)

    async def require_open(self, tx: Transaction, session_id: str) -> Session:
        """Lock an open session and return it. Raises SessionNotOpen, PermissionDenied."""
        session = await session_store.get(tx, session_id, lock=True)
        if session is None:
            raise PermissionDenied
        rule(session.state)
        return session

    async def append_object_modified(self, tx: Transaction, session_id: str, alias: str, type_: str) -> None:
        """Say that an object was created or replaced. Raises LimitExceeded where the organization's logs are full."""
        full = await self._append(tx, session_id, "session_object_modified", {"alias": alias, "object_type": type_})
        if full is not None:
            raise full

    async def append_object_deleted(self, tx: Transaction, session_id: str, alias: str) -> None:
        """Say that an object was deleted."""
        await self._append(tx, session_id, "session_object_deleted", {"alias": alias})

    async def append_closing(self, tx: Transaction, session_id: str) -> None:
        """Say that the session takes no more executions."""
        await self._append(tx, session_id, "session_closing", {})

    async def append_closed(self, tx: Transaction, session_id: str) -> None:
        """Say that nothing runs in the session any more; the log ends here."""
        await self._append(tx, session_id, "session_closed", {})

    async def _append(self, tx: Transaction, session_id: str, payload: str, fields: dict[str, str]) -> LimitExceeded | None:
        """Append an event. Where its bytes were due to be counted, return why no more are to come, if that is so."""
        end = await session_store.take_number(tx, session_id, self._host.clock())
        line = session_line(
            payload,
            fields,
            event_id=self._host.ids(),
            session_id=session_id,
            session_sequence=end.last_session_sequence,
            at=end.last_event_time,
        )
        await event_store.append(tx, [line])
        await self._host.bell.announce(tx, {session_id})
        tx.after_commit(lambda: self._log.publish([line]))
        grown = to_count(end.log_bytes, end.counted_log_bytes, closed=payload == "session_closed")
        if not grown:
            return None
        await session_store.count_log(tx, session_id)
        return (await self._budget.add(tx, {end.organization_id: grown})).get(end.organization_id)
