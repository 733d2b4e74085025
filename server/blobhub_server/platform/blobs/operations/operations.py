"""Operations as calls see them: they begin them and cancel them, each in the transaction of the call."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from blobhub.v1 import operation_pb2 as pb

from blobhub_server.blobtypes.contract import Limits, RevisionView
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Transaction
from blobhub_server.db.notify import Doorbell
from blobhub_server.errors import NotFound, PermissionDenied
from blobhub_server.ids import Ids
from blobhub_server.platform.blobs.operations.message import to_proto
from blobhub_server.platform.rules.operation import Operation, OperationEnded, OperationState
from blobhub_server.platform.store import operation as store
from blobhub_server.platform.store import revision as revision_store

WORK = "operations"
"""The doorbell that is rung when there may be something to run, or to stop running."""

LIMIT = "blob.open_operations"


def topic(operation_id: str) -> str:
    """The doorbell that is rung when an operation has changed."""
    return f"operation {operation_id}"


class Operations:
    """Implements `blobtypes.operations.Operations`."""

    def __init__(self, types: BlobTypes, limits: Limits, bell: Doorbell, clock: Clock, ids: Ids) -> None:
        self._types = types
        self._limits = limits
        self._bell = bell
        self._clock = clock
        self._ids = ids

    async def begin(
        self,
        tx: Transaction,
        *,
        kind: str,
        revision: RevisionView,
        actor_id: str,
        data: Mapping[str, Any],
        digest: str = "",
    ) -> pb.Operation:
        if kind not in self._types.operations():
            raise KeyError(kind)
        place = {"organization_id": revision.organization_id, "blob_id": revision.blob_id}
        await self._limits.lock(tx, **place)
        if await revision_store.get(tx, revision.id) is None:
            raise NotFound("revision", revision.id)
        await self._limits.require(tx, LIMIT, **place, held=await store.count_open(tx, revision.blob_id) + 1)
        operation = Operation(
            id=self._ids(),
            **place,
            revision_id=revision.id,
            kind=kind,
            data=data,
            digest=digest or None,
            actor_id=actor_id,
            state=OperationState.PENDING,
            stage="",
            done_millionths=None,
            create_time=self._clock(),
            start_time=None,
            end_time=None,
            error=None,
            response=None,
            sequence=1,
            fence=0,
            attempts=0,
        )
        await store.insert(tx, operation)
        await self._bell.ring_after_commit(tx, [WORK])
        return to_proto(operation)

    async def find(self, tx: Transaction, operation_ids: Collection[str]) -> dict[str, pb.Operation]:
        return {found.id: to_proto(found) for found in await store.find_some(tx, operation_ids)}

    async def cancel(self, tx: Transaction, operation_id: str) -> Operation:
        """Cancel an operation, or leave one that is cancelled; return it.

        Raises OperationEnded when it has ended otherwise, PermissionDenied when it is gone.
        """
        cancelled = await store.cancel(tx, operation_id, self._clock())
        if cancelled is not None:
            await self._tell(tx, [operation_id])
            return cancelled
        ended = await store.get(tx, operation_id)
        if ended is None:
            raise PermissionDenied
        if ended.state is not OperationState.CANCELLED:
            raise OperationEnded(ended.state)
        return ended

    async def cancel_of_revision(self, tx: Transaction, revision_id: str) -> None:
        """Cancel all operations of a revision that is discarded. The caller has locked its blob."""
        cancelled = await store.cancel_of_revision(tx, revision_id, self._clock())
        if cancelled:
            await self._tell(tx, cancelled)

    async def _tell(self, tx: Transaction, operation_ids: Sequence[str]) -> None:
        await self._bell.ring_after_commit(tx, [WORK, *map(topic, operation_ids)])
