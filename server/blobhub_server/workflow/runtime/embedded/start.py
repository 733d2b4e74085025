"""Starts executions, many to a transaction, or in the transaction of a caller."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial

from blobhub_server.background import Turns
from blobhub_server.blobtypes import json_text
from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.blobtypes.values import Entry
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import BlobHubError, NotFound, StorageUnavailable
from blobhub_server.workflow.definitions.finder import Definitions, Found
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter import ExecutionState, Started
from blobhub_server.workflow.log.budget import LogBudget
from blobhub_server.workflow.lookups import Lookups
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.limit import EXECUTIONS
from blobhub_server.workflow.rules.session import require_open
from blobhub_server.workflow.rules.session_object import Reading
from blobhub_server.workflow.runtime.contract import PreparedStart, Start, StartWork
from blobhub_server.workflow.runtime.decision import Decision, Progress, decide_alike, happen
from blobhub_server.workflow.runtime.embedded.journal import Journal
from blobhub_server.workflow.runtime.embedded.runner import Runner
from blobhub_server.workflow.runtime.embedded.runners import Runners
from blobhub_server.workflow.runtime.embedded.unit import Unit
from blobhub_server.workflow.store import execution as execution_store


class Starts:
    """Starts executions. A repeated cause gets its first execution."""

    def __init__(self, host: Host, definitions: Definitions, journal: Journal, runners: Runners, server_id: str) -> None:
        self._host = host
        self._definitions = definitions
        self._journal = journal
        self._runners = runners
        self._server_id = server_id
        self._budget = LogBudget(host.limits)

    async def submit(self, start: Start, work: StartWork | None = None) -> Execution:
        prepared = await self.prepare(start)
        if prepared.first is not None:
            return prepared.first
        if start.revision is not None:
            return _unwrap(*await self._host.db.transact(lambda tx: self.join_all(tx, [prepared], work)))
        async with self._host.db.read() as tx:
            unit = await self._unit(tx, prepared, work, Lookups(), self._host.clock())
        return await self._journal.append(unit)

    async def prepare(self, start: Start) -> PreparedStart:
        async with self._host.db.read() as tx:
            first = await self._find_first(tx, start)
            if first is not None:
                return PreparedStart(start=start, definition=None, first=first)
            require_open(start.session.state)
            revision_id = start.revision.id if start.revision else start.session.revision_id
            definition = await self._definitions.runnable(tx, revision_id, start.definition)
        definition.require_inputs(start.input_data)
        return PreparedStart(start=start, definition=definition, first=None)

    def deferred(self) -> AbstractContextManager[None]:
        return self._runners.launches.deferred()

    async def join(self, tx: Transaction, prepared: PreparedStart, work: StartWork | None = None) -> Execution:
        first = prepared.first or await self._find_first(tx, prepared.start)
        return _unwrap(*await self.join_all(tx, [prepared], work)) if first is None else first

    async def join_all(
        self, tx: Transaction, prepared: Sequence[PreparedStart], work: StartWork | None = None
    ) -> list[Execution | BlobHubError]:
        lookups = Lookups()
        for blob_id in sorted({item.start.revision.blob_id for item in prepared if item.start.revision is not None}):
            await self._pin(tx, blob_id, lookups)
        answers: list[Unit | Execution | BlobHubError] = []
        turns, now, later = Turns(), self._host.clock(), self._runners.launches.deferring and len(prepared) > 1
        for item in prepared:
            try:
                answers.append(await self._unit(tx, item, work, lookups, now, later=later))
            except StorageUnavailable:
                raise
            except BlobHubError as error:
                answers.append(error)
            await turns.pause()
        written = iter(await self._journal.join(tx, [unit for unit in answers if isinstance(unit, Unit)]))
        return [next(written) if isinstance(answer, Unit) else answer for answer in answers]

    async def _pin(self, tx: Transaction, blob_id: str, lookups: Lookups) -> bool:
        """Lock the blob of a definition, so that whoever deletes it counts the execution; False when it is gone."""
        return await lookups.once(("pin", blob_id), partial(self._host.contents.pin, tx, blob_id))

    async def _is_there(self, tx: Transaction, revision: RevisionView, entry: Entry, lookups: Lookups) -> bool:
        """Whether a definition of a blob that is locked is there."""
        find = partial(self._host.contents.find, tx, revision.id, entry.id)
        return await self._pin(tx, revision.blob_id, lookups) and await lookups.once(("entry", entry.id), find) is not None

    async def _find_first(self, tx: Transaction, start: Start) -> Execution | None:
        """The execution that the cause has started before."""
        if start.cause is None:
            return None
        return await execution_store.get_by_cause(tx, start.cause)

    async def _unit(
        self,
        tx: Transaction,
        prepared: PreparedStart,
        work: StartWork | None,
        lookups: Lookups,
        now: datetime,
        *,
        later: bool = False,
    ) -> Unit:
        """The unit of a start. Nothing is written yet, and nothing runs before the commit.

        One that is to run later evaluates nothing in the transaction, and shares what it begins with with others.
        Raises LimitExceeded, and NotFound when its definition is one of a blob that was pinned, and is gone.
        """
        start, graph = prepared.start, _definition(prepared).graph
        session, once = start.session, lookups.once
        entry = _definition(prepared).entry
        if start.revision is not None and not await self._is_there(tx, start.revision, entry, lookups):
            raise NotFound("definition", start.definition)
        organization_id, blob_id = session.organization_id, session.blob_id
        await once(("room", organization_id), partial(self._budget.require_room, tx, organization_id))
        value = partial(self._host.limits.value, tx, EXECUTIONS, organization_id=organization_id, blob_id=blob_id)
        limit = await once(("limit", blob_id), value)
        reads = graph.session_reads
        read = partial(self._journal.objects.read, tx, session.id, reads, organization_id=organization_id)
        objects = await once(("objects", session.id, reads), read) if reads and not later else Reading()
        execution = self._execution(start, entry, now)
        runner = self._runners.make(graph, Progress(execution, ExecutionState(step_limit=start.step_limit)))
        happening = Started(dict(start.input_data))
        if not later:
            launch = partial(self._runners.launch, runner)
            return runner.start_unit(happening, objects, limit=limit, work=work, then=launch)
        decision = await _decide_start(runner, graph, happening, lookups)
        launch = partial(self._runners.launch_later, runner)
        return runner.start_unit(happening, objects, limit=limit, work=work, then=launch, budget=0, decision=decision)

    def _execution(self, start: Start, entry: Entry, now: datetime) -> Execution:
        return Execution(
            id=self._host.ids(),
            organization_id=start.session.organization_id,
            session_id=start.session.id,
            blob_id=start.session.blob_id,
            revision_id=entry.revision_id,
            definition_blob_id=start.revision.blob_id if start.revision else start.session.blob_id,
            definition_id=entry.id,
            definition_alias=entry.name,
            definition_digest=entry.digest,
            actor_id=start.actor_id,
            cause=start.cause,
            owner=self._server_id,
            fence=1,
            last_message=0,
            recoveries=0,
            state="pending",
            step_limit=start.step_limit,
            timeout=start.timeout,
            result=None,
            failure=None,
            last_execution_sequence=0,
            create_time=now,
            end_time=None,
            parent_id=start.parent.id if start.parent else None,
            depth=start.parent.depth + 1 if start.parent else 0,
        )


async def _decide_start(runner: Runner, graph: Graph, happening: Started, lookups: Lookups) -> Decision:
    """What a start leads to that evaluates nothing yet. It is decided once for all that begin in the same way."""
    execution = runner.execution
    progress = Progress(execution, ExecutionState(step_limit=execution.step_limit))

    async def decide() -> Decision:
        return happen(graph, progress, [happening], now=runner.now(), session={}, budget=0)

    key = ("start", execution.definition_id, execution.step_limit, json_text.write(dict(happening.input_data)))
    first = await lookups.once(key, decide)
    return first if first.progress.execution.id == execution.id else decide_alike(first, execution)


def _definition(prepared: PreparedStart) -> Found:
    assert prepared.definition is not None, "it is there unless the cause has started an execution before"
    return prepared.definition


def _unwrap(answer: Execution | BlobHubError) -> Execution:
    if isinstance(answer, Execution):
        return answer
    raise answer
