"""FiringService on the wire."""

from __future__ import annotations

from blobhub.v1 import execution_pb2, schedule_pb2
from blobhub.v1 import firing_pb2 as pb

from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host
from blobhub_server.rpc.wire import to_timestamp
from blobhub_server.scheduler.rules.firing import Firing, FiringKind, FiringStatus

_KINDS = {kind: pb.FiringKind.Value(f"FIRING_KIND_{kind.name}") for kind in FiringKind}
_STATUSES = {status: pb.FiringStatus.Value(f"FIRING_STATUS_{status.name}") for status in FiringStatus}


def to_proto(firing: Firing) -> pb.Firing:
    """A firing as its message."""
    return pb.Firing(
        id=firing.id,
        schedule_id=firing.schedule_id,
        schedule_alias=firing.schedule_alias,
        blob_id=firing.blob_id,
        kind=_KINDS[firing.kind],
        nominal_time=to_timestamp(firing.nominal_time),
        due_time=to_timestamp(firing.due_time),
        fire_time=to_timestamp(firing.fire_time),
        tzdata_version=firing.tzdata,
        schedule_digest=firing.schedule_digest,
        actor_id=firing.actor_id,
        invocation_target=schedule_pb2.InvocationTarget(
            revision=firing.revision, session=firing.session, definition=firing.definition
        ),
        status=_STATUSES[firing.status],
        reason=firing.reason,
        message=firing.message,
        execution_id=firing.execution_id or "",
        session_id=firing.session_id or "",
        execution_state=_execution_state(firing.execution_state),
        end_time=None if firing.end_time is None else to_timestamp(firing.end_time),
        sequence=firing.sequence,
    )


def _execution_state(state: str | None) -> execution_pb2.ExecutionState.ValueType:
    if state is None:
        return execution_pb2.EXECUTION_STATE_UNSPECIFIED
    return execution_pb2.ExecutionState.Value(f"EXECUTION_STATE_{state.upper()}")


class FiringService:
    """Answers what schedules have done."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def GetFiring(self, request: pb.GetFiringRequest, call: Call[Firing]) -> pb.GetFiringResponse:
        return pb.GetFiringResponse(firing=to_proto(call.resource))
