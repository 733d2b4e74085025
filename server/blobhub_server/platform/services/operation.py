"""OperationService on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from blobhub.v1 import operation_pb2 as pb

from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import PermissionDenied
from blobhub_server.platform.blobs.operations.message import STATES, to_proto
from blobhub_server.platform.blobs.operations.operations import Operations, topic
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.operation import FINAL, Operation
from blobhub_server.platform.store import operation as store
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.watch import Watch, check_range, pack

_STATE_OF = {number: state for state, number in STATES.items()}


@dataclass(frozen=True, slots=True)
class _Line:
    """An operation as a watch sends it: its number, its state as the type, and the message, encoded."""

    number: int
    event: bytes
    type: str


def _line(operation: Operation) -> _Line:
    return _Line(number=operation.sequence, event=to_proto(operation).SerializeToString(), type=operation.state.value)


class OperationService:
    """Finds, watches and cancels operations."""

    def __init__(self, host: Host, operations: Operations) -> None:
        self._host = host
        self._operations = operations

    async def GetOperation(self, request: pb.GetOperationRequest, call: Call[Operation]) -> pb.GetOperationResponse:
        return pb.GetOperationResponse(operation=to_proto(call.resource))

    async def ListOperations(self, request: pb.ListOperationsRequest, call: Call[Blob]) -> pb.ListOperationsResponse:
        blob_id, order_by = call.resource.id, request.order_by or "create_time desc"
        state = _STATE_OF.get(request.state)
        page = Page.parse(request, blob_id, state.value if state else "", request.kind, order_by)
        async with self._host.db.scan(call.caller.party) as tx:
            found = await store.page(
                tx, blob_id, state=state, kind=request.kind, order_by=order_by, after=page.after, limit=page.limit + 1
            )
        items, token = await page.fill(found, lambda operation: operation.id, to_proto)
        return pb.ListOperationsResponse(operations=items, next_page_token=token)

    async def WatchOperation(self, request: pb.WatchOperationRequest, call: Call[Operation]) -> AsyncIterator[bytes]:
        operation, after = call.resource, request.after_sequence
        check_range(after, operation.sequence)
        if operation.state in FINAL and after == operation.sequence:
            return
        watch = Watch(
            topic=topic(operation.id),
            read=lambda after: self._read(operation.id, after),
            number=lambda line: line.number,
            progress_seconds=self._host.settings.progress_seconds,
            last=frozenset(state.value for state in FINAL),
        )
        async for batch in watch.stream(call, self._host.bell, self._host.drain, after, replay_only=request.replay_only):
            yield pack(batch, self._host.clock())

    async def _read(self, operation_id: str, after: int) -> list[_Line]:
        """The operation as it is now, unless the reader has seen that. Raises PermissionDenied when it is gone."""
        async with self._host.db.read() as tx:
            current = await store.get(tx, operation_id)
        if current is None:
            raise PermissionDenied
        return [_line(current)] if current.sequence > after else []

    async def CancelOperation(self, request: pb.CancelOperationRequest, call: Call[Operation]) -> pb.CancelOperationResponse:
        async def make(tx: Transaction) -> pb.CancelOperationResponse:
            cancelled = await self._operations.cancel(tx, call.resource.id)
            return pb.CancelOperationResponse(operation=to_proto(cancelled))

        return await call.once(make)
