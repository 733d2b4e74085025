"""The capability that workflows offer: starting executions in the transactions of other blob types."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress

from blobhub_server.blobtypes.access import Place, Role
from blobhub_server.blobtypes.capabilities import EndListener, Invocable, Invocation, InvocationResult
from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import BlobHubError, PermissionDenied
from blobhub_server.workflow.definitions.finder import Definitions
from blobhub_server.workflow.errors import TYPE, ExecutionEnded
from blobhub_server.workflow.invoking import Invoking
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.runtime.contract import Runtime
from blobhub_server.workflow.runtime.inbox import Inbox
from blobhub_server.workflow.store import execution as execution_store


class Invocations(Invocable):
    """Implements `blobtypes.capabilities.Invocable`."""

    blob_type = TYPE

    def __init__(self, host: Host, definitions: Definitions, runtime: Runtime, inbox: Inbox) -> None:
        self._host = host
        self._definitions = definitions
        self._runtime = runtime
        self._inbox = inbox
        self._invoking = Invoking(host, definitions, runtime)

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
        answer = (await self.invoke_all(tx, [invocation]))[invocation.cause]
        if isinstance(answer, BlobHubError):
            raise answer
        return answer

    async def invoke_all(
        self, tx: Transaction, invocations: Sequence[Invocation]
    ) -> Mapping[str, InvocationResult | BlobHubError]:
        answers = await self._invoking.start_all(tx, invocations)
        return {cause: _result(answer) if isinstance(answer, Execution) else answer for cause, answer in answers.items()}

    def deferred(self) -> AbstractContextManager[None]:
        return self._runtime.deferred()

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
                revision = await self._invoking.revision(tx, invocation)
                return (await self._definitions.entry(tx, revision.id, invocation.definition)).digest
            except BlobHubError:
                return None


def _result(execution: Execution) -> InvocationResult:
    assert execution.cause is not None, "it was invoked"
    return InvocationResult(
        cause=execution.cause.id,
        execution_id=execution.id,
        session_id=execution.session_id,
        state=execution.state,
        end_time=execution.end_time,
    )
