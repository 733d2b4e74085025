"""Starts executions from steps of others, on behalf of whoever these run for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

from blobhub_server.blobtypes.access import Place, Role
from blobhub_server.blobtypes.contract import Host, RevisionView, Settlement
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import BlobHubError, PermissionDenied
from blobhub_server.workflow.components.awaits import Await
from blobhub_server.workflow.components.awaits import child as child_await
from blobhub_server.workflow.components.child import Child
from blobhub_server.workflow.definitions.finder import Definitions
from blobhub_server.workflow.errors import TYPE, ExecutionEnded
from blobhub_server.workflow.rules import limit
from blobhub_server.workflow.rules.child import Origin
from blobhub_server.workflow.rules.execution import Execution, checked_input
from blobhub_server.workflow.rules.session import Session
from blobhub_server.workflow.runtime.contract import Children, IsOpen, PreparedStart, Runtime, Start
from blobhub_server.workflow.sessions import Sessions
from blobhub_server.workflow.store import child as store
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import session as session_store

BEHIND_SECONDS = 0.01


class _Behind(Exception):
    """A turn of the parent was committed that its runner does not know yet, so whether the step is open is not known."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A child to start: what the step says, and the revision that this leads to."""

    child: Child
    parent: Execution
    origin: Origin
    is_open: IsOpen
    revision: RevisionView
    definition: str

    @property
    def own_session(self) -> bool:
        """Whether it runs in another session than its parent's."""
        return bool(self.child.session) or self.revision.blob_id != self.parent.blob_id


class ChildStarts(Children):
    """Implements `runtime.contract.Children`."""

    def __init__(self, host: Host, definitions: Definitions, runtime: Runtime) -> None:
        self._host = host
        self._definitions = definitions
        self._runtime = runtime
        self._sessions = Sessions(host)

    async def start(self, child: Child, parent: Execution, origin: Origin, is_open: IsOpen) -> Await:
        started = await self._host.db.trouble.outlasted(lambda: self._start(child, parent, origin, is_open))
        return child_await(
            execution_id=started.id, session_id=started.session_id, blob_id=started.blob_id, timeout=child.timeout
        )

    async def _start(self, child: Child, parent: Execution, origin: Origin, is_open: IsOpen) -> Execution:
        async with self._host.db.read() as tx:
            first = await execution_store.get_by_cause(tx, origin.cause)
        if first is not None:
            return first
        reference, _, definition = child.definition.rpartition("/")
        found = await self._host.actors.find_revision(parent.actor_id, reference or parent.revision_id)
        wanted = Wanted(
            child=child,
            parent=parent,
            origin=origin,
            is_open=is_open,
            revision=found.require_type(TYPE),
            definition=definition,
        )
        # Without a transaction: reading and compiling may take long.
        await self._definitions.load((await self._definitions.find(found.id, definition)).digest)
        for attempt in count(1):
            try:
                return await self._host.db.transact(lambda tx: self._join(tx, wanted))
            except _Behind:
                await asyncio.sleep(BEHIND_SECONDS * attempt)
        raise AssertionError("the loop has no end")

    async def _join(self, tx: Transaction, wanted: Wanted) -> Execution:
        """Start it, in the order of locks: blobs, sessions, executions."""
        revision, parent = wanted.revision, wanted.parent
        place = Place(organization_id=revision.organization_id, blob_id=revision.blob_id)
        if await self._host.actors.role(tx, parent.actor_id, place) < Role.WRITE:
            message = f"{wanted.child.definition}: whoever this is done for may not execute in that workflow"
            raise PermissionDenied(message)
        session, opened = await self._session(tx, wanted)
        definition = await self._definitions.runnable(tx, revision.id, wanted.definition)
        inputs = checked_input(wanted.child.inputs)
        definition.require_inputs(inputs)
        start = Start(
            session=session,
            definition=wanted.definition,
            input_data=inputs,
            actor_id=parent.actor_id,
            cause=wanted.origin.cause,
            revision=revision,
            parent=parent,
        )
        prepared = PreparedStart(start=start, definition=definition, first=None)
        started = await self._runtime.join(tx, prepared, partial(self._require_wanted, wanted=wanted))
        if opened and started.session_id != session.id:  # It was started before, by a commit that seemed to fail.
            await session_store.collect(tx, [session.id], 1)
        return started

    async def _session(self, tx: Transaction, wanted: Wanted) -> tuple[Session, bool]:
        """The session to run it in, and whether it was opened for that; its blob is locked."""
        revision, alias = wanted.revision, wanted.child.session
        if not wanted.own_session:
            await self._host.contents.pin(tx, revision.blob_id)
            session = await session_store.get(tx, wanted.parent.session_id)
            if session is None:
                raise PermissionDenied
            return session, False
        await self._host.limits.lock(tx, organization_id=revision.organization_id, blob_id=revision.blob_id)
        found = await session_store.get_by_alias(tx, revision.id, alias) if alias else None
        if found is not None:
            return found, False
        (opened,) = await self._sessions.create_all(tx, revision, [alias], reference=wanted.child.definition)
        if isinstance(opened, BlobHubError):
            raise opened
        return opened, True

    async def _require_wanted(self, tx: Transaction, execution: Execution, *, wanted: Wanted) -> Sequence[Settlement]:
        """See, under the lock of the parent's row, that its step still waits, and that it may have one more."""
        parent = wanted.parent
        row = (await execution_store.lock(tx, [parent.id])).get(parent.id)
        is_open = row is not None and wanted.is_open(row)
        if is_open is None:
            raise _Behind
        if not is_open:
            raise ExecutionEnded("stopped")  # Nobody hears it: the step has ended.
        place = {"organization_id": parent.organization_id, "blob_id": parent.blob_id}
        await self._host.limits.require(tx, limit.DEPTH, **place, held=execution.depth)
        await self._host.limits.require(tx, limit.CHILDREN, **place, held=await store.count(tx, parent.id))
        return ()
