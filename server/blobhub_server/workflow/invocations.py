"""The capability that workflows offer: starting executions in the transactions of other blob types."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from blobhub_server.blobtypes.access import Place, Role
from blobhub_server.blobtypes.capabilities import EndListener, Invocable, Invocation, InvocationResult
from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import BlobHubError, PermissionDenied
from blobhub_server.workflow.definitions.finder import Definitions
from blobhub_server.workflow.errors import TYPE, CauseReused, ExecutionEnded
from blobhub_server.workflow.rules.execution import Cause, CauseKind, Execution, checked_input
from blobhub_server.workflow.rules.session import Session
from blobhub_server.workflow.runtime.contract import Runtime, Start
from blobhub_server.workflow.runtime.inbox import Inbox
from blobhub_server.workflow.sessions import Sessions
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import session as session_store


class Invocations(Invocable):
    """Implements `blobtypes.capabilities.Invocable`."""

    def __init__(self, host: Host, definitions: Definitions, runtime: Runtime, inbox: Inbox) -> None:
        self._host = host
        self._definitions = definitions
        self._runtime = runtime
        self._inbox = inbox
        self._sessions = Sessions(host)

    def listen(self, on_end: EndListener) -> None:
        async def tell(tx: Transaction, ended: Sequence[Execution]) -> None:
            await on_end(tx, [_result(execution) for execution in ended])

        self._runtime.listen(tell)

    async def prepare(self, invocation: Invocation) -> None:
        digest = await self._find_digest(invocation)
        if digest is not None:
            # Without a connection: reading and compiling may take long.
            await self._definitions.load(digest)

    async def invoke(self, tx: Transaction, invocation: Invocation) -> InvocationResult:
        revision = await self._revision(tx, invocation)
        input_data = checked_input(invocation.inputs)
        # The savepoint also undoes a session that was created before a refusal.
        async with tx.savepoint():
            execution = await self._start(tx, invocation, revision, input_data)
            if execution.blob_id != revision.blob_id:
                raise CauseReused(invocation.cause)
        return _result(execution)

    async def find(self, tx: Transaction, causes: Collection[str]) -> Mapping[str, InvocationResult]:
        results = [_result(execution) for execution in await execution_store.find_invoked(tx, causes)]
        return {result.cause: result for result in results}

    async def stop(self, tx: Transaction, cause: str, actor_id: str) -> InvocationResult | None:
        found = await execution_store.find_invoked(tx, [cause])
        if not found:
            return None
        (execution,) = found
        place = Place(organization_id=execution.organization_id, blob_id=execution.blob_id)
        if await self._host.actors.role(tx, actor_id, place) < Role.WRITE:
            raise PermissionDenied
        with suppress(ExecutionEnded):
            execution = await self._inbox.stop(tx, execution.id)
        return _result(execution)

    async def _find_digest(self, invocation: Invocation) -> str | None:
        """The digest of the definition to invoke; None when `invoke` would refuse, the actor's role first of all."""
        async with self._host.db.read() as tx:
            try:
                revision = await self._revision(tx, invocation)
                return (await self._definitions.entry(tx, revision.id, invocation.definition)).digest
            except BlobHubError:
                return None

    async def _revision(self, tx: Transaction, invocation: Invocation) -> RevisionView:
        """The revision to invoke, once the actor is found to be allowed to."""
        found = await self._host.revisions.resolve(tx, invocation.revision)
        if found is None or await self._host.actors.role(tx, invocation.actor_id, found.place) < Role.WRITE:
            raise PermissionDenied
        if isinstance(found.resource, BlobHubError):
            raise found.resource
        return found.resource.require_type(TYPE)

    async def _start(
        self, tx: Transaction, invocation: Invocation, revision: RevisionView, input_data: Mapping[str, Any]
    ) -> Execution:
        """The execution that the cause has started before, or a new one."""
        cause = _cause(invocation.cause)
        session = await _find_session(tx, revision, invocation.session)
        if session is None:
            # Before the cause is looked up: with the lock, whoever made the session or started the same cause has committed.
            await self._host.limits.lock(tx, organization_id=revision.organization_id, blob_id=revision.blob_id)
        first = await execution_store.get_by_cause(tx, cause)
        if first is not None:
            return first
        if session is None:
            session = await _find_session(tx, revision, invocation.session) or await self._sessions.create(
                tx, revision, reference=invocation.revision, alias=invocation.session
            )
        start = Start(
            session=session,
            definition=invocation.definition,
            input_data=input_data,
            cause=cause,
            revision=revision,
        )
        return await self._runtime.join(tx, await self._runtime.prepare(start, tx))


def _cause(cause: str) -> Cause:
    return Cause(CauseKind.FIRING, cause)


def _result(execution: Execution) -> InvocationResult:
    assert execution.cause is not None, "it was invoked"
    return InvocationResult(
        cause=execution.cause.id,
        execution_id=execution.id,
        session_id=execution.session_id,
        state=execution.state,
        end_time=execution.end_time,
    )


async def _find_session(tx: Transaction, revision: RevisionView, alias: str) -> Session | None:
    """The session of a revision that has an alias and is not closed."""
    return await session_store.get_by_alias(tx, revision.id, alias) if alias else None
