"""The journal makes the decisions of executions durable, many to a transaction, or in the transaction of a caller.

A unit is what one turn of one execution adds: records, the projection, session objects, and further work. All of it is
written in one transaction, which locks the execution's row and compares its fence and the number of the last message to it.
Watchers are woken after the commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from blobhub_server.background import Turns
from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.db.group import GroupCommitter
from blobhub_server.errors import BlobHubError, LimitExceeded, PermissionDenied
from blobhub_server.rpc.wire import to_timestamp
from blobhub_server.workflow.errors import SessionNotOpen
from blobhub_server.workflow.log.budget import LogBudget
from blobhub_server.workflow.log.encode import EncodedRecord, number_event
from blobhub_server.workflow.log.log import EventLog
from blobhub_server.workflow.log.session_events import session_line
from blobhub_server.workflow.rules import session_object as object_rules
from blobhub_server.workflow.rules.execution import CauseKind, Execution
from blobhub_server.workflow.rules.session import (
    CLOSED,
    SESSION_EVENT_BYTES,
    Session,
    count_growth,
    require_open,
    require_room,
)
from blobhub_server.workflow.rules.session_object import SessionObject
from blobhub_server.workflow.rules.task import queue_topic
from blobhub_server.workflow.runtime.embedded.current import bring_up_to_date
from blobhub_server.workflow.runtime.embedded.failure_log import FailureLog
from blobhub_server.workflow.runtime.embedded.kin import kin_of, tell_kin
from blobhub_server.workflow.runtime.embedded.object_reader import ObjectReader
from blobhub_server.workflow.runtime.embedded.rendezvous import bring_together
from blobhub_server.workflow.runtime.embedded.unit import EncodedUnit, Key, Unit
from blobhub_server.workflow.store import event as event_store
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import message as message_store
from blobhub_server.workflow.store import session as session_store
from blobhub_server.workflow.store import session_object as object_store
from blobhub_server.workflow.store.event import LoggedEvent
from blobhub_server.workflow.store.execution import LockedExecution
from blobhub_server.workflow.tasks.queueing import Queueing


class OwnershipLost(Exception):
    """Another server has taken over the execution, or it was deleted, so its runner has to end."""


class TurnOutdated(Exception):
    """A message was committed that the turn ignores, so the turn has to be decided again."""


class LogMovedOn(Exception):
    """The log has records that the turn does not build on: a commit that seemed to fail was made a moment later."""


Refusal = OwnershipLost | TurnOutdated | LogMovedOn | PermissionDenied | SessionNotOpen | LimitExceeded


class Journal:
    """Makes units durable.

    `objects` reads the session objects that units rest on. `on_doubt` is called with the unit of a new execution whose
    commit failed and may have been made. `on_end` is called, in the transaction, with the executions that end in it,
    were started by a firing, and were not new in it.
    """

    def __init__(
        self,
        host: Host,
        log: EventLog,
        on_doubt: Callable[[Unit], None],
        on_end: Callable[[Transaction, Sequence[Execution]], Awaitable[None]],
    ) -> None:
        self.objects = ObjectReader()
        self._failures = FailureLog()
        self._host = host
        self._log = log
        self._budget = LogBudget(host.limits)
        self._queueing = Queueing(host)
        self._on_doubt = on_doubt
        self._on_end = on_end
        self._committer: GroupCommitter[Unit, Execution | Refusal] = GroupCommitter(
            host.db,
            self._write,
            kept=lambda unit: unit.limit is None,
            parties=(lambda unit: unit.execution.organization_id, lambda unit: unit.execution.actor_id),
            weight=lambda unit: len(unit.records) + unit.spent,
        )

    async def append(self, unit: Unit) -> Execution:
        """Write a unit in a transaction that it shares with others; return once it is durable.

        The units of an actor are written in the order they came, and those of several organizations, and actors, in turns.

        Returns and raises what `join` returns, and OwnershipLost, TurnOutdated and LogMovedOn for an execution that is not
        new; nothing of it is written then. When the storage cannot be used, a new execution raises StorageUnavailable; a
        unit of one that runs waits here, for as long as that takes, and is written once.
        """
        # Before the transaction: those who share it do not wait for a large unit to be encoded.
        return _unwrap(await self._committer.submit(await unit.encode()))

    async def join(self, tx: Transaction, starts: Sequence[Unit]) -> list[Execution | BlobHubError]:
        """Write units of new executions in somebody's transaction; return for each its execution, or why there is none.

        When a cause has started one before, nothing is written for it, and that one is returned. The others are
        PermissionDenied, SessionNotOpen and LimitExceeded. Nothing is written for those either.
        """
        answers = await self._write(tx, starts) if starts else ()
        return [answer for answer in answers if isinstance(answer, Execution | BlobHubError)]

    async def close(self) -> None:
        """Finish what was appended."""
        await self._committer.close()

    async def _write(self, tx: Transaction, units: Sequence[Unit]) -> Sequence[Execution | Refusal]:
        """Write units in a transaction; return for each its execution, or why nothing of it was written."""
        new = [unit for unit in units if unit.limit is not None]
        changed = [unit for unit in units if unit.limit is None]
        sessions = await session_store.lock(tx, {unit.execution.session_id for unit in units})
        answers = await self._insert_new(tx, new, sessions) | await self._check_running(tx, changed, sessions)
        decided = [unit for unit in units if unit.key not in answers]
        if decided:
            current, turns = await bring_up_to_date(tx, decided, self.objects), Turns()
            # The row of a new execution is that of its first decision.
            grown = [now for before, now in zip(decided, current, strict=True) if now.limit is None or now is not before]
            await execution_store.project(tx, [unit.execution for unit in grown])
            encoded, alike = list[Unit](), dict[int, Unit]()
            for unit in current:
                # Executions that are started many at once share their first records.
                encoded.append(await unit.encode(alike.get(id(unit.records))))
                alike[id(unit.records)] = encoded[-1]
                await turns.pause()
            await self._store(tx, encoded, sessions)
            answers |= {unit.key: unit.execution for unit in current}
        return [answers[unit.key] for unit in units]

    async def _insert_new(
        self, tx: Transaction, units: Sequence[Unit], sessions: Mapping[str, Session]
    ) -> dict[Key, Execution | Refusal]:
        """Store executions that are new.

        Returns, by their keys, those that are not: which execution the same cause has started before, or why it is refused.
        """
        first: dict[Key, Execution | Refusal] = {}
        refused = _check_starts(units, sessions)
        if refused:
            # A repeated cause gets its first execution, even when no new one may be started any more.
            first |= await self._find_first(tx, [unit.execution for unit in units])
            refused = _check_starts([unit for unit in units if unit.key not in first], sessions)
        left = [unit.execution for unit in units if unit.key not in first.keys() | refused.keys()]
        stored = await execution_store.insert(tx, left) if left else ()
        for execution in left:
            sessions[execution.session_id].executions += execution.id in stored
        # The cause may have been there before, twice in this batch, or in another server's transaction of a moment ago.
        return first | refused | await self._find_first(tx, [item for item in left if item.id not in stored])

    async def _find_first(self, tx: Transaction, new: Sequence[Execution]) -> dict[Key, Execution]:
        """The executions that were started by the same causes, by the keys that the new ones would have."""
        known = await execution_store.find_by_causes(tx, {item.cause for item in new if item.cause is not None})
        return {_key(item): known[item.cause] for item in new if item.cause in known}

    async def _check_running(
        self, tx: Transaction, units: Sequence[Unit], sessions: Mapping[str, Session]
    ) -> dict[Key, Execution | Refusal]:
        """Lock the rows of executions that are not new. Those whose sessions are gone are gone with them.

        Returns, by key, those that are not to be written: why some are refused, and those that were written before.
        """
        left = [unit.execution.id for unit in units if unit.execution.session_id in sessions]
        rows = await execution_store.lock(tx, {*left, *await kin_of(tx, units)}) if left else {}
        others: dict[Key, Execution | Refusal] = {}
        for unit in units:
            refusal = _check_current(unit, rows.get(unit.execution.id))
            if isinstance(refusal, LogMovedOn) and await self._was_written(tx, unit, rows[unit.execution.id]):
                others[unit.key] = unit.execution
            elif refusal is not None:
                others[unit.key] = refusal
        return others

    async def _was_written(self, tx: Transaction, unit: Unit, row: LockedExecution) -> bool:
        """Whether the log ends with just the unit's records: its commit seemed to fail and was made.

        Then only what follows from the commit is left to do. The lock on the row has waited for the end of that commit.
        """
        execution = unit.execution
        if row.last_execution_sequence != execution.last_execution_sequence:
            return False
        before, records = execution.last_execution_sequence - len(unit.records), [it.record for it in _encoded(unit).records]
        if await event_store.records_after(tx, execution.id, before, limit=len(records) + 1) != records:
            return False
        tx.after_commit(partial(self._after_commit, unit))
        # Its lines are in no tail: the numbers that they got are in the database, where watchers will read them.
        queues = (queue_topic(execution.organization_id, request.queue) for request in unit.tasks.requests)
        for topic in (execution.session_id, execution.id, *queues):
            tx.after_commit(partial(self._host.bell.ring, topic))
        return True

    def _after_commit(self, unit: Unit) -> None:
        unit.on_commit()
        self._failures.note(unit)

    async def _store(self, tx: Transaction, units: Sequence[Unit], sessions: Mapping[str, Session]) -> None:
        """Write units that have been checked, and whose executions are stored and projected."""
        touched = {unit.execution.session_id for unit in units}
        lines = [*await self._lines(units, sessions), *await self._close_sessions(tx, units, sessions)]
        grown = count_growth(sessions[id_] for id_ in touched)
        await session_store.advance(tx, [sessions[id_] for id_ in sorted(touched)])
        if lines:
            await event_store.append(tx, lines)
            await self._host.bell.announce(tx, _topics(units, lines, sessions))
        taken = {unit.execution.id: unit.execution.last_message for unit in units if unit.messages}
        if taken:
            await message_store.delete(tx, taken)
        # Of those that write one object the last counts, for the others found each other's in `bring_up_to_date`.
        objects = {(unit.execution.session_id, alias): unit for unit in units for alias in unit.objects}
        if objects:
            await object_store.put(tx, [self._object(unit, alias) for (_, alias), unit in objects.items()])
        if tasks := [(unit.execution, unit.tasks) for unit in units if unit.tasks.requests or unit.tasks.over]:
            await self._queueing.write(tx, tasks)
        settled = [item for unit in units if unit.work for item in await unit.work(tx, unit.execution)]
        # After the rows of executions, as whoever signals them locks, and before the logs' sizes.
        await bring_together(tx, self._host, units)
        await tell_kin(tx, self._host, units)
        # Late, for all who write to the organization's logs share this lock; and before those that listeners take, because
        # whoever joins a start locks the same after it.
        full = await self._budget.add(tx, grown) if grown else {}
        fired = [unit.execution for unit in units if unit.execution.ended and unit.limit is None and _was_fired(unit)]
        if fired:
            await self._on_end(tx, fired)
        await self._host.settle(tx, settled)
        turns = Turns()
        for unit in units:
            await turns.pause()
            tx.after_commit(partial(self._after_commit, unit))
            if unit.execution.organization_id in full:
                tx.after_commit(partial(unit.on_full, full[unit.execution.organization_id]))
            if unit.limit is not None:  # All others are written again.
                tx.when_in_doubt(partial(self._on_doubt, unit))
        tx.after_commit(partial(self._log.publish, lines))

    async def _close_sessions(
        self, tx: Transaction, units: Sequence[Unit], sessions: Mapping[str, Session]
    ) -> list[LoggedEvent]:
        """Close those sessions that wait for it and in which the last execution ends with these units."""
        ids = {unit.execution.session_id for unit in units if unit.execution.ended}
        closing = {id_ for id_ in ids if sessions[id_].closes_when_idle}
        idle = sorted(closing - await execution_store.find_busy(tx, closing)) if closing else []
        if idle:
            await session_store.set_state(tx, idle, CLOSED, self._host.clock())
        for id_ in idle:
            sessions[id_].state = CLOSED
        return [self._session_line(sessions[id_], "session_closed", {}) for id_ in idle]

    async def _lines(self, units: Sequence[Unit], sessions: Mapping[str, Session]) -> list[LoggedEvent]:
        turns, lines = Turns(), []
        for unit in units:
            execution, session = unit.execution, sessions[unit.execution.session_id]
            number = execution.last_execution_sequence - len(unit.records)
            for record in _encoded(unit).records:
                session.advance(datetime.fromtimestamp(record.at, UTC))
                number += 1
                line = self._line(unit, record, session, number)
                session.log_bytes += line.size
                lines.append(line)
                await turns.pause()
            for alias, value in unit.objects.items():
                fields = {"alias": alias, "object_type": object_rules.type_of(value)}
                lines.append(self._session_line(session, "session_object_modified", fields))
        return lines

    def _line(self, unit: Unit, record: EncodedRecord, session: Session, number: int) -> LoggedEvent:
        event = number_event(
            record,
            event_id=self._host.ids(),
            session_sequence=session.last_session_sequence,
            execution_sequence=number,
            at=to_timestamp(session.last_event_time),
        )
        return LoggedEvent(
            session_id=session.id,
            session_sequence=session.last_session_sequence,
            execution_id=unit.execution.id,
            execution_sequence=number,
            type=record.type,
            create_time=session.last_event_time,
            event=event,
            record=record.record,
        )

    def _session_line(self, session: Session, payload: str, fields: dict[str, str]) -> LoggedEvent:
        session.advance(self._host.clock())
        session.log_bytes += SESSION_EVENT_BYTES
        return session_line(
            payload,
            fields,
            event_id=self._host.ids(),
            session_id=session.id,
            session_sequence=session.last_session_sequence,
            at=session.last_event_time,
        )

    def _object(self, unit: Unit, alias: str) -> SessionObject:
        text, now = _encoded(unit).objects[alias], self._host.clock()
        return SessionObject(
            session_id=unit.execution.session_id,
            alias=alias,
            type=object_rules.type_of(unit.objects[alias]),
            value=text,
            size=len(text.encode()),
            create_time=now,
            update_time=now,
            etag=self._host.ids(),
        )


def _key(execution: Execution) -> Key:
    return execution.id, execution.fence


def _topics(units: Sequence[Unit], lines: Sequence[LoggedEvent], sessions: Mapping[str, Session]) -> set[str]:
    """The logs that somebody on another server may listen to: not those of what is made in this transaction.

    That is every new execution, and with it the session that was made for it alone.
    """
    new = {unit.execution.id for unit in units if unit.limit is not None}
    alone = {unit.execution.session_id for unit in units if unit.limit is not None}
    new |= {id_ for id_ in alone if sessions[id_].closes_itself and sessions[id_].executions == 1}
    return {id_ for line in lines for id_ in (line.session_id, line.execution_id) if id_ and id_ not in new}


def _was_fired(unit: Unit) -> bool:
    cause = unit.execution.cause
    return cause is not None and cause.kind is CauseKind.FIRING


def _encoded(unit: Unit) -> EncodedUnit:
    assert unit.encoded is not None, "units are encoded before they are written"
    return unit.encoded


def _unwrap(answer: Execution | Refusal) -> Execution:
    if isinstance(answer, Execution):
        return answer
    raise answer


def _check_starts(units: Sequence[Unit], sessions: Mapping[str, Session]) -> dict[Key, Refusal]:
    """Why new executions cannot be started, by their keys."""
    refused: dict[Key, Refusal] = {}
    started: Counter[str] = Counter()
    for unit in units:
        session = sessions.get(unit.execution.session_id)
        try:
            if session is None:
                raise PermissionDenied
            require_open(session.state)
            assert unit.limit is not None, "it is for new executions"
            require_room(session, session.executions + started[session.id] + 1, unit.limit)
        except (PermissionDenied, SessionNotOpen, LimitExceeded) as error:
            refused[unit.key] = error
        else:
            started[session.id] += 1
    return refused


def _check_current(unit: Unit, row: LockedExecution | None) -> Refusal | None:
    """Why a turn must not be written, by what it builds on and what stands in the execution's row."""
    execution = unit.execution
    if row is None or row.fence != execution.fence:
        return OwnershipLost()
    if row.last_execution_sequence != execution.last_execution_sequence - len(unit.records):
        return LogMovedOn()
    return TurnOutdated() if row.last_message != execution.last_message else None
