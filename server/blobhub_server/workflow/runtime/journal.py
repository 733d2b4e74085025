"""The journal: what executions decide becomes durable here, many executions to a transaction.

A unit is what one step forward of one execution adds: its records, the projection of its state, the session objects it
writes. The log, the projections and the objects change in the same transaction, and the fence of the session's owner is
checked in it. Watchers are told after the commit.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from blobhub_server.blobtypes.contract import Host, Settled
from blobhub_server.db.engine import Transaction
from blobhub_server.db.group import GroupCommitter
from blobhub_server.errors import OwnershipLost
from blobhub_server.rpc.wire import to_timestamp
from blobhub_server.workflow.interpreter import Graph, Record
from blobhub_server.workflow.rules import session_object as object_rules
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.session import Session, require_open, require_room
from blobhub_server.workflow.rules.session_object import SessionObject
from blobhub_server.workflow.runtime.encode import encode_record, encode_session_event
from blobhub_server.workflow.runtime.log import EventLog
from blobhub_server.workflow.store import event as event_store
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import session as session_store
from blobhub_server.workflow.store import session_object as object_store
from blobhub_server.workflow.store.event import LoggedEvent


@dataclass(frozen=True, slots=True)
class Unit:
    """One step forward of one execution.

    `execution` is its projection after `records`; `fence` is the one under which this server owns the session. `limit` is
    for a new execution, whose row is to be made: how many the session may have had, with it. `committed` is told the
    projection once it is durable, before any watcher can see the records. `objects` holds session objects to write, by
    alias. `settled` is what the calls that brought the step about leave in the audit log and among the remembered answers.
    """

    execution: Execution
    graph: Graph
    fence: int
    records: Sequence[Record]
    committed: Callable[[Execution], None]
    limit: int | None = None
    objects: Mapping[str, Any] = field(default_factory=dict)
    settled: Sequence[Settled] = ()

    @property
    def new(self) -> bool:
        """True for an execution's first unit."""
        return self.limit is not None

    @property
    def numbers(self) -> int:
        """How many lines the unit adds to the session's log."""
        return len(self.records) + len(self.objects)


class Journal:
    """Makes units durable, in the order they were submitted."""

    def __init__(self, host: Host, log: EventLog) -> None:
        self._host = host
        self._log = log
        self._committer: GroupCommitter[Unit, None] = GroupCommitter(host.db, self._apply)

    async def append(self, unit: Unit) -> None:
        """Return when the unit is durable. Raises OwnershipLost when another server has taken the session."""
        await self._committer.submit(unit)

    async def close(self) -> None:
        """Finish what was submitted."""
        await self._committer.close()

    async def _apply(self, tx: Transaction, units: Sequence[Unit]) -> Sequence[None]:
        sessions = await self._take_numbers(tx, units)
        lines = self._lines(units, sessions)
        new = [unit.execution for unit in units if unit.new]
        if new:
            await execution_store.insert(tx, new)
        changed = [unit.execution for unit in units if not unit.new]
        if changed:
            await execution_store.project(tx, changed)
        if lines:
            await event_store.append(tx, lines)
        written = [item for unit in units for item in self._objects(unit)]
        if written:
            await object_store.put(tx, written)
        await self._host.bell.announce(tx, {line.session_id for line in lines} | {u.execution.id for u in units})
        await self._host.settle(tx, [item for unit in units for item in unit.settled])
        tx.after_commit(lambda: self._tell(units, lines))
        return [None] * len(units)

    def _tell(self, units: Sequence[Unit], lines: Sequence[LoggedEvent]) -> None:
        for unit in units:
            unit.committed(unit.execution)
        self._log.publish(lines)

    async def _take_numbers(self, tx: Transaction, units: Sequence[Unit]) -> dict[str, Session]:
        added: Counter[tuple[str, int]] = Counter()
        started: Counter[tuple[str, int]] = Counter()
        for unit in units:
            added[unit.execution.session_id, unit.fence] += unit.numbers
            started[unit.execution.session_id, unit.fence] += unit.new
        sessions = await session_store.advance(tx, [(*owned, n, started[owned]) for owned, n in sorted(added.items())])
        for unit in units:
            session = sessions.get(unit.execution.session_id)
            if session is None or session.fence != unit.fence:
                raise OwnershipLost
            if unit.limit is not None:
                require_open(session.state)
                require_room(session, unit.limit)
        for (id_, _), n in added.items():
            sessions[id_].last_sequence -= n
        return sessions

    def _lines(self, units: Sequence[Unit], sessions: Mapping[str, Session]) -> list[LoggedEvent]:
        lines = []
        for unit in units:
            execution, session = unit.execution, sessions[unit.execution.session_id]
            number = execution.last_sequence - len(unit.records)
            for record in unit.records:
                session.last_sequence += 1
                number += 1
                lines.append(self._line(unit, record, session.last_sequence, number))
            for alias, value in unit.objects.items():
                session.last_sequence += 1
                lines.append(self._object_line(session, alias, value))
        return lines

    def _line(self, unit: Unit, record: Record, sequence: int, number: int) -> LoggedEvent:
        execution = unit.execution
        event = encode_record(
            record,
            unit.graph,
            execution,
            event_id=self._host.ids(),
            sequence=sequence,
            execution_sequence=number,
        )
        kept = json.dumps(record.to_json(), separators=(",", ":"))
        return LoggedEvent(execution.session_id, sequence, execution.id, number, record.type, event, kept)

    def _object_line(self, session: Session, alias: str, value: Any) -> LoggedEvent:
        payload = "session_object_modified"
        event = encode_session_event(
            payload,
            {"alias": alias, "object_type": object_rules.type_of(value)},
            event_id=self._host.ids(),
            session_id=session.id,
            sequence=session.last_sequence,
            at=to_timestamp(self._host.clock()),
        )
        return LoggedEvent(session.id, session.last_sequence, None, 0, payload, event, None)

    def _objects(self, unit: Unit) -> list[SessionObject]:
        now = self._host.clock()
        made = []
        for alias, value in unit.objects.items():
            text = object_rules.encode(value)
            made.append(
                SessionObject(
                    session_id=unit.execution.session_id,
                    alias=alias,
                    type=object_rules.type_of(value),
                    value=text,
                    size=len(text.encode()),
                    create_time=now,
                    update_time=now,
                    etag=self._host.ids(),
                )
            )
        return made
