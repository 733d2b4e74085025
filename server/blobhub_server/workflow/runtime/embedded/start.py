"""Starts executions, many to a transaction, or in the transaction of a caller."""

from __future__ import annotations

from functools import partial

from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.values import Entry
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import InvalidValue
from blobhub_server.workflow.definitions.finder import Definitions
from blobhub_server.workflow.interpreter import ExecutionState, Started
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.limit import EXECUTIONS
from blobhub_server.workflow.rules.session import require_open
from blobhub_server.workflow.runtime.contract import Start, StartWork
from blobhub_server.workflow.runtime.decision import Progress
from blobhub_server.workflow.runtime.embedded.journal import Journal, Unit
from blobhub_server.workflow.runtime.embedded.runners import Runners
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import session_object as object_store


class Starts:
    """Starts executions. A repeated cause gets its first execution."""

    def __init__(self, host: Host, definitions: Definitions, journal: Journal, runners: Runners, server_id: str) -> None:
        self._host = host
        self._definitions = definitions
        self._journal = journal
        self._runners = runners
        self._server_id = server_id

    async def submit(self, start: Start, work: StartWork | None = None) -> Execution:
        async with self._host.db.read() as tx:
            first = await self._find_first(tx, start)
            if first is not None:
                return first
            unit = await self._unit(tx, start, work)
        return await self._journal.append(unit)

    async def join(self, tx: Transaction, start: Start) -> Execution:
        first = await self._find_first(tx, start)
        if first is not None:
            return first
        return await self._journal.join(tx, await self._unit(tx, start))

    async def _find_first(self, tx: Transaction, start: Start) -> Execution | None:
        """The execution that the cause has started before."""
        if start.cause is None:
            return None
        return (await execution_store.find_by_causes(tx, [start.cause])).get(start.cause)

    async def _unit(self, tx: Transaction, start: Start, work: StartWork | None = None) -> Unit:
        """The unit of a start. Nothing is written yet, and nothing runs before the commit."""
        session = start.session
        require_open(session.state)
        entry = await self._definitions.entry(tx, start.revision_id or session.revision_id, start.definition)
        graph = (await self._definitions.load(entry.digest)).runnable()
        unknown = sorted(start.input_data.keys() - graph.input_aliases)
        if unknown:
            raise InvalidValue("input_data", f"the definition has no input {unknown[0]!r}")
        limit = await self._host.limits.value(tx, EXECUTIONS, org_id=session.org_id, blob_id=session.blob_id)
        values = await object_store.values(tx, session.id, graph.session_aliases) if graph.session_aliases else {}
        progress = Progress(self._execution(start, entry), ExecutionState(step_limit=start.step_limit))
        runner = self._runners.make(graph, progress)
        return runner.start_unit(
            Started(dict(start.input_data)), values, limit=limit, work=work, then=partial(self._runners.launch, runner)
        )

    def _execution(self, start: Start, entry: Entry) -> Execution:
        return Execution(
            id=self._host.ids(),
            session_id=start.session.id,
            blob_id=start.session.blob_id,
            revision_id=entry.revision_id,
            definition_id=entry.id,
            definition_alias=entry.name,
            definition_digest=entry.digest,
            cause=start.cause,
            owner=self._server_id,
            fence=1,
            last_message=0,
            state="pending",
            step_limit=start.step_limit,
            timeout=start.timeout,
            has_result=False,
            result=None,
            failure=None,
            last_sequence=0,
            create_time=self._host.clock(),
            end_time=None,
        )
