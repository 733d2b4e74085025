"""Starts executions, many to a transaction, or in the transaction of a caller."""

from __future__ import annotations

from functools import partial

from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.values import Entry
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import InvalidValue, NotFound
from blobhub_server.workflow.definitions.finder import Definitions, Found
from blobhub_server.workflow.interpreter import ExecutionState, Started
from blobhub_server.workflow.log.budget import LogBudget
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.limit import EXECUTIONS
from blobhub_server.workflow.rules.session import require_open
from blobhub_server.workflow.runtime.contract import PreparedStart, Start, StartWork
from blobhub_server.workflow.runtime.decision import Progress
from blobhub_server.workflow.runtime.embedded.journal import Journal
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
            return await self._host.db.transact(lambda tx: self._begin(tx, prepared, work))
        async with self._host.db.read() as tx:
            unit = await self._unit(tx, prepared, work)
        return await self._journal.append(unit)

    async def prepare(self, start: Start, tx: Transaction | None = None) -> PreparedStart:
        if tx is not None:
            return await self._prepare(tx, start)
        async with self._host.db.read() as reading:
            return await self._prepare(reading, start)

    async def _prepare(self, tx: Transaction, start: Start) -> PreparedStart:
        first = await self._find_first(tx, start)
        if first is not None:
            return PreparedStart(start=start, definition=None, first=first)
        require_open(start.session.state)
        revision_id = start.revision.id if start.revision else start.session.revision_id
        entry = await self._definitions.entry(tx, revision_id, start.definition)
        graph = (await self._definitions.load(entry.digest)).runnable()
        unknown = sorted(start.input_data.keys() - graph.input_aliases)
        if unknown:
            raise InvalidValue("spec.input_data", f"the definition has no input {unknown[0]!r}")
        return PreparedStart(start=start, definition=Found(entry, graph), first=None)

    async def join(self, tx: Transaction, prepared: PreparedStart) -> Execution:
        first = prepared.first or await self._find_first(tx, prepared.start)
        return await self._begin(tx, prepared) if first is None else first

    async def _begin(self, tx: Transaction, prepared: PreparedStart, work: StartWork | None = None) -> Execution:
        """Start in somebody's transaction. The definition's blob is locked, so whoever deletes it counts this execution."""
        revision = prepared.start.revision
        if revision is not None:
            contents = self._host.contents
            pinned = await contents.pin(tx, revision.blob_id)
            if not pinned or await contents.find(tx, revision.id, _definition(prepared).entry.id) is None:
                raise NotFound("definition", prepared.start.definition)
        return await self._journal.join(tx, await self._unit(tx, prepared, work))

    async def _find_first(self, tx: Transaction, start: Start) -> Execution | None:
        """The execution that the cause has started before."""
        if start.cause is None:
            return None
        return await execution_store.get_by_cause(tx, start.cause)

    async def _unit(self, tx: Transaction, prepared: PreparedStart, work: StartWork | None = None) -> Unit:
        """The unit of a start. Nothing is written yet, and nothing runs before the commit."""
        start, graph = prepared.start, _definition(prepared).graph
        session_id, blob_id = start.session.id, start.session.blob_id
        await self._budget.require_room(tx, start.session.organization_id)
        limit = await self._host.limits.value(tx, EXECUTIONS, organization_id=start.session.organization_id, blob_id=blob_id)
        objects = await self._journal.objects.read(tx, session_id, graph.session_reads)
        execution = self._execution(start, _definition(prepared).entry)
        runner = self._runners.make(graph, Progress(execution, ExecutionState(step_limit=start.step_limit)))
        happening, launch = Started(dict(start.input_data)), partial(self._runners.launch, runner)
        return runner.start_unit(happening, objects, limit=limit, work=work, then=launch)

    def _execution(self, start: Start, entry: Entry) -> Execution:
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
            create_time=self._host.clock(),
            end_time=None,
        )


def _definition(prepared: PreparedStart) -> Found:
    assert prepared.definition is not None, "it is there unless the cause has started an execution before"
    return prepared.definition
