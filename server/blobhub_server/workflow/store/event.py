"""The event log: append-only, one per session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.parts import delete_large
from blobhub_server.db.portion import count_within
from blobhub_server.db.prepared import Prepared, is_one_of
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.db.schema import Id, Time, metadata


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One line of a session's log.

    `event` is the public event as serialized protobuf, what watchers get, byte for byte; `type` and `create_time` are the
    same as in it. `record` is what replay needs, as JSON text; None for events of the session itself.
    """

    session_id: str
    session_sequence: int
    execution_id: str | None
    execution_sequence: int
    type: str
    create_time: datetime
    event: bytes
    record: str | None

    @property
    def size(self) -> int:
        """How many bytes of the log it takes: its event, and its record, which is ASCII."""
        return len(self.event) + len(self.record or "")


events = sa.Table(
    "events",
    metadata,
    sa.Column("session_id", Id(), sa.ForeignKey("sessions.id"), primary_key=True),
    sa.Column("session_sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("execution_id", Id()),
    sa.Column("execution_sequence", sa.BigInteger, nullable=False),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
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
    sa.Index("ix_events_create_time", "session_id", "create_time"),
    sqlite_with_rowid=False,
)

_LINE = Mapper(LoggedEvent, events)
_PUBLIC = Mapper(LoggedEvent, events, looked_up={"record": sa.null()})
_APPEND = Prepared(events.insert())


async def append(tx: Transaction, lines: Sequence[LoggedEvent]) -> None:
    """Add lines. The primary key refuses a session sequence that is taken."""
    await tx.run_each(_APPEND, [_LINE.row(line) for line in lines])


_AFTER, _MOST = sa.bindparam("after", type_=sa.BigInteger), sa.bindparam("most", type_=sa.BigInteger)
_SESSION = events.c.session_id == sa.bindparam("session")
_EXECUTION = events.c.execution_id == sa.bindparam("execution")


@dataclass(frozen=True, slots=True)
class _Part:
    """Two queries for the same lines in the same order, both with a limit: how long their events are, and the lines.

    Both databases know the length of bytes without reading them.
    """

    sizes: Prepared[int]
    lines: Prepared[LoggedEvent]

    @classmethod
    def of(
        cls, whose: sa.ColumnElement[bool], number: sa.Column[int], *only: sa.ColumnElement[bool], descending: bool = False
    ) -> _Part:
        """The lines of a log after the number `after`, without their records."""

        def limited(query: sa.Select[Any]) -> sa.Select[Any]:
            return query.where(whose, number > _AFTER, *only).order_by(number.desc() if descending else number).limit(_MOST)

        sizes = sa.select(sa.func.length(events.c.event).label("size"))
        return cls(
            sizes=Prepared(limited(sizes), Scalar(int)),
            lines=Prepared(limited(_PUBLIC.select()), _PUBLIC),
        )

    async def read(self, tx: Transaction, *, limit: int, max_bytes: int, **parameters: Any) -> list[LoggedEvent]:
        """The first lines: `limit` of them, or up to the one that makes them `max_bytes` or more."""
        found = await tx.all(self.sizes, most=limit, **parameters)
        count = count_within(found, max_bytes)
        return await tx.all(self.lines, most=count, **parameters) if count else []


_OF_SESSION = _Part.of(_SESSION, events.c.session_sequence)
_OF_EXECUTION = _Part.of(_EXECUTION, events.c.execution_sequence)


async def page_of_session(tx: Transaction, session_id: str, after: int, *, limit: int, max_bytes: int) -> list[LoggedEvent]:
    """A session's lines after a session sequence, without their records, up to the one that makes them `max_bytes`."""
    return await _OF_SESSION.read(tx, session=session_id, after=after, limit=limit, max_bytes=max_bytes)


async def page_of_execution(
    tx: Transaction, execution_id: str, after: int, *, limit: int, max_bytes: int
) -> list[LoggedEvent]:
    """An execution's lines after an execution sequence, likewise."""
    return await _OF_EXECUTION.read(tx, execution=execution_id, after=after, limit=limit, max_bytes=max_bytes)


def _of_part(*, one_execution: bool, filtered: bool, descending: bool) -> _Part:
    number = events.c.execution_sequence if one_execution else events.c.session_sequence
    only = [number <= sa.bindparam("last", type_=sa.BigInteger)]
    only += [is_one_of(events.c.type, "types")] if filtered else []
    return _Part.of(_EXECUTION if one_execution else _SESSION, number, *only, descending=descending)


_OF_PART = {
    (one_execution, filtered, descending): _of_part(one_execution=one_execution, filtered=filtered, descending=descending)
    for one_execution, filtered, descending in product((False, True), repeat=3)
}


async def part(
    tx: Transaction,
    session_id: str,
    execution_id: str,
    *,
    after: int,
    last: int,
    types: Sequence[str],
    descending: bool,
    limit: int,
    max_bytes: int,
) -> list[LoggedEvent]:
    """Lines of a part of a log, without their records: after the number `after` and up to `last`, at most `limit`.

    They end with the one that makes them `max_bytes` or more. The log is an execution's, in its own numbering, or, where
    `execution_id` is empty, the session's. `types` are those that are wanted; empty for all.
    """
    query = _OF_PART[bool(execution_id), bool(types), descending]
    whose = {"execution": execution_id} if execution_id else {"session": session_id}
    wanted = {"types": types} if types else {}
    return await query.read(tx, after=after, last=last, limit=limit, max_bytes=max_bytes, **whose, **wanted)


_AT_TIME = Prepared(
    sa.select(events.c.session_sequence)
    .where(_SESSION, events.c.create_time <= sa.bindparam("at", type_=Time()))
    .order_by(events.c.create_time.desc())
    .limit(1),
    Scalar(int),
)


async def session_sequence_at(tx: Transaction, session_id: str, at: datetime) -> int:
    """The number of the last event of a session until a time, that included; 0 where there is none."""
    return await tx.first(_AT_TIME, session=session_id, at=at) or 0


_SESSION_SEQUENCE = Prepared(
    sa.select(events.c.session_sequence).where(
        _EXECUTION, events.c.execution_sequence == sa.bindparam("number", type_=sa.BigInteger)
    ),
    Scalar(int),
)


async def session_sequence_of(tx: Transaction, execution_id: str, execution_sequence: int) -> int:
    """The number in the session's log that an event of an execution has; 0 where it is gone."""
    return await tx.first(_SESSION_SEQUENCE, execution=execution_id, number=execution_sequence) or 0


def _after(column: sa.ColumnElement[Any]) -> sa.Select[Any]:
    wanted = sa.select(column).where(_EXECUTION, events.c.execution_sequence > _AFTER)
    return wanted.order_by(events.c.execution_sequence).limit(_MOST)


_RECORDS = Prepared(_after(events.c.record), Scalar(str))
_RECORD_SIZES = Prepared(_after(sa.func.length(events.c.record).label("size")), Scalar(int))


async def records_after(tx: Transaction, execution_id: str, after: int, *, limit: int) -> list[str]:
    """The first records of an execution after an execution sequence, in order."""
    return await tx.all(_RECORDS, execution=execution_id, after=after, most=limit)


async def records_to_replay(tx: Transaction, execution_id: str, after: int, *, limit: int, max_characters: int) -> list[str]:
    """The same, but no more than up to the one that makes them `max_characters` or more."""
    sizes = await tx.all(_RECORD_SIZES, execution=execution_id, after=after, most=limit)
    count = count_within(sizes, max_characters)
    return await records_after(tx, execution_id, after, limit=count) if count else []


_FIRST_RECORD = Prepared(sa.select(events.c.record).where(_EXECUTION, events.c.execution_sequence == 1), Scalar(str))


async def first_record(tx: Transaction, execution_id: str) -> str | None:
    """The first record of an execution, which holds what it was given; None when its log is gone."""
    return await tx.first(_FIRST_RECORD, execution=execution_id)


async def collect(tx: Transaction, session_ids: Sequence[str], rows: int) -> int:
    """Remove so many lines of the logs of sessions, about, and fewer of large ones; return how many rows they count for."""
    length = sa.func.length(events.c.event) + sa.func.coalesce(sa.func.length(events.c.record), 0)
    return await delete_large(tx, events, events.c.session_id.in_(session_ids), rows, length)
