"""Operations as messages."""

from __future__ import annotations

from blobhub.v1 import operation_pb2 as pb
from google.protobuf.any_pb2 import Any
from google.rpc.status_pb2 import Status

from blobhub_server.platform.rules.operation import Operation, OperationState
from blobhub_server.rpc.wire import to_timestamp

MILLION = 1_000_000
STATES = {state: pb.OperationState.Value(f"OPERATION_STATE_{state.name}") for state in OperationState}


def to_proto(operation: Operation) -> pb.Operation:
    """An operation as its message."""
    done = None if operation.done_millionths is None else operation.done_millionths / MILLION
    return pb.Operation(
        id=operation.id,
        blob_id=operation.blob_id,
        revision_id=operation.revision_id,
        kind=operation.kind,
        state=STATES[operation.state],
        progress=pb.OperationProgress(stage=operation.stage, done=done),
        actor_id=operation.actor_id,
        create_time=to_timestamp(operation.create_time),
        start_time=to_timestamp(operation.start_time) if operation.start_time else None,
        end_time=to_timestamp(operation.end_time) if operation.end_time else None,
        error=Status.FromString(operation.error) if operation.error is not None else None,
        response=Any.FromString(operation.response) if operation.response is not None else None,
        sequence=operation.sequence,
    )
