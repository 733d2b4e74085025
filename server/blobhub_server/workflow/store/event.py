"""The event log: append-only, one per session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.schema import Id, Selected, metadata
from blobhub_server.workflow.store.session import of_blobs


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One line of a session's log.

    `event` is the public event as serialized protobuf, what watchers get, byte for byte. `record` is what replay needs,
    as JSON text; None for events of the session itself.
    """

    session_id: str
    sequence: int
    execution_id: str | None
    execution_sequence: int
    type: str
    event: bytes
    record: str | None


events = sa.Table(
    "events",
    metadata,
    sa.Column("session_id", Id(), sa.ForeignKey("sessions.id"), primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("execution_id", Id()),
    sa.Column("execution_sequence", sa.BigInteger, nullable=False),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("event", sa.LargeBinary, nullable=False),
    sa.Column("record", sa.Text),
    sa.Index(
        "uq_events_execution",
        "execution_id",
        "execution_sequence",
        unique=True,
        sqlite_where=sa.text("execution_id IS NOT NULL"),
        postgresql_where=sa.text("execution_id IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)

_PUBLIC = (
    events.c.session_id,
    events.c.sequence,
    events.c.execution_id,
    events.c.execution_sequence,
    events.c.type,
)


def _line(row: Sequence[Any]) -> LoggedEvent:
    session_id, sequence, execution_id, execution_sequence, type_, event = row
    return LoggedEvent(session_id, sequence, execution_id, execution_sequence, type_, event, None)


async def append(tx: Transaction, lines: Sequence[LoggedEvent]) -> None:
    """Add lines. The primary key refuses a sequence that is taken."""
    await tx.execute(
        events.insert(),
        [
            {
                "session_id": line.session_id,
                "sequence": line.sequence,
                "execution_id": line.execution_id,
                "execution_sequence": line.execution_sequence,
                "type": line.type,
                "event": line.event,
                "record": line.record,
            }
            for line in lines
        ],
    )


async def of_session(tx: Transaction, session_id: str, after: int, limit: int) -> list[LoggedEvent]:
    """A session's lines after a sequence, without their records."""
    query = (
        sa.select(*_PUBLIC, events.c.event)
        .where(events.c.session_id == session_id, events.c.sequence > after)
        .order_by(events.c.sequence)
        .limit(limit)
    )
    return [_line(row) for row in await tx.execute(query)]


async def of_execution(tx: Transaction, execution_id: str, after: int, limit: int) -> list[LoggedEvent]:
    """An execution's lines after an execution sequence, without their records."""
    query = (
        sa.select(*_PUBLIC, events.c.event)
        .where(events.c.execution_id == execution_id, events.c.execution_sequence > after)
        .order_by(events.c.execution_sequence)
        .limit(limit)
    )
    return [_line(row) for row in await tx.execute(query)]


async def records(tx: Transaction, execution_id: str) -> list[str]:
    """All records of an execution, in order, for replay."""
    query = sa.select(events.c.record).where(events.c.execution_id == execution_id).order_by(events.c.execution_sequence)
    return list((await tx.execute(query)).scalars())


async def delete_all(tx: Transaction, blob_ids: Selected) -> None:
    """Remove the logs of all sessions of blobs."""
    await tx.execute(events.delete().where(events.c.session_id.in_(of_blobs(blob_ids))))
