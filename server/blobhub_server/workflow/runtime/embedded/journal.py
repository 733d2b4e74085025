"""The journal: what executions decide becomes durable here, many executions to a transaction, or in somebody else's.

A unit is what one step forward of one execution adds: its records, the projection of its state, the session objects it
writes, and what is to be done beside it. All of that changes in the same transaction, and the fence of the session's owner
is checked in it. Watchers are told after the commit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.db.group import GroupCommitter
from blobhub_server.rpc.wire import to_timestamp
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.errors import OwnershipLost
from blobhub_server.workflow.interpreter import Record
from blobhub_server.workflow.log.encode import encode_record, encode_session_event
from blobhub_server.workflow.log.log import EventLog
from blobhub_server.workflow.rules import session_object as object_rules
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.session import Session, require_open, require_room
from blobhub_server.workflow.rules.session_object import SessionObject
from blobhub_server.workflow.runtime.contract import Beside
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
    alias.
    """

    execution: Execution
    graph: Graph
    fence: int
    records: Sequence[Record]
    committed: Callable[[Execution], None]
    limit: int | None = None
    objects: Mapping[str, Any] = field(default_factory=dict)
    beside: Beside | None = None


class Journal:
    """Makes units durable."""

    def __init__(self, host: Host, log: EventLog) -> None:
        self._host = host
        self._log = log
        self._committer: GroupCommitter[Unit, Execution] = GroupCommitter(host.db, self.write)

    async def append(self, unit: Unit) -> Execution:
        """Write a unit in a transaction that it shares with others, in the order they came; return once it is durable.

        Returns and raises what `write` does.
        """
        return await self._committer.submit(unit)

    async def close(self) -> None:
        """Finish what was appended."""
        await self._committer.close()

    async def write(self, tx: Transaction, units: Sequence[Unit]) -> Sequence[Execution]:
        """Write units in a transaction; return each one's execution.

        Of a new execution whose cause has started one before nothing is written, and that one is returned. Raises
        OwnershipLost when another server has taken a session, SessionNotOpen and LimitExceeded for new executions; then
        nothing has been written.
        """
        sessions = await session_store.lock(tx, {unit.execution.session_id for unit in units})
        first = await self._begin(tx, units, sessions)
        written = [unit for unit in units if unit.execution.id not in first]
        if written:
            await self._write(tx, written, sessions)
        return [first.get(unit.execution.id, unit.execution) for unit in units]

    async def _begin(self, tx: Transaction, units: Sequence[Unit], sessions: Mapping[str, Session]) -> dict[str, Execution]:
        """Check all units, and store those executions that are new.

        Returns those that were started before by the same causes, by the id that the new ones would have had.
        """
        new = [unit.execution for unit in units if unit.limit is not None]
        known = await execution_store.caused_by(tx, {item.cause for item in new if item.cause is not None})
        first = {item.id: known[item.cause] for item in new if item.cause in known}
        for unit in units:
            if unit.execution.id not in first:
                _require(unit, sessions.get(unit.execution.session_id))
        unknown = [item for item in new if item.id not in first]
        stored = await execution_store.insert(tx, unknown) if unknown else ()
        # Two of one cause may be in this batch, or another server's transaction may have committed a moment ago.
        late = [item for item in unknown if item.id not in stored]
        known = await execution_store.caused_by(tx, {item.cause for item in late if item.cause is not None})
        for item in late:
            sessions[item.session_id].executions -= 1
        return first | {item.id: known[item.cause] for item in late if item.cause is not None}

    async def _write(self, tx: Transaction, units: Sequence[Unit], sessions: Mapping[str, Session]) -> None:
        """Write units that have been checked, and whose new executions are stored."""
        lines = self._lines(units, sessions)
        touched = {unit.execution.session_id for unit in units}
        await session_store.advance(tx, [sessions[id_] for id_ in sorted(touched)])
        changed = [unit.execution for unit in units if unit.limit is None]
        if changed:
            await execution_store.project(tx, changed)
        if lines:
            await event_store.append(tx, lines)
        objects = [item for unit in units for item in self._objects(unit)]
        if objects:
            await object_store.put(tx, objects)
        await self._host.bell.announce(tx, touched | {unit.execution.id for unit in units})
        settled = [item for unit in units if unit.beside for item in await unit.beside(tx, unit.execution)]
        await self._host.settle(tx, settled)
        for unit in units:
            tx.after_commit(partial(unit.committed, unit.execution))
        tx.after_commit(partial(self._log.publish, lines))

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


def _require(unit: Unit, session: Session | None) -> None:
    """Count a unit in its session. Raises OwnershipLost and, for a new execution, SessionNotOpen and LimitExceeded."""
    if session is None or session.fence != unit.fence:
        raise OwnershipLost
    if unit.limit is not None:
        require_open(session.state)
        session.executions += 1
        require_room(session, unit.limit)
