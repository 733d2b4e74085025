"""Schedules as messages."""

from __future__ import annotations

from datetime import datetime

from blobhub.v1 import schedule_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from blobhub_server.rpc.wire import to_timestamp
from blobhub_server.scheduler.rules.document import ScheduleDocument
from blobhub_server.scheduler.rules.schedule import Schedule
from blobhub_server.scheduler.rules.state import State, state_of
from blobhub_server.scheduler.rules.timing import Timing
from blobhub_server.scheduler.schedules import SavedSchedule
from blobhub_server.scheduler.services.spec import to_spec

STATES = {
    State.ACTIVE: pb.SCHEDULE_STATE_ACTIVE,
    State.PAUSED: pb.SCHEDULE_STATE_PAUSED,
    State.COMPLETED: pb.SCHEDULE_STATE_COMPLETED,
}


def to_proto(saved: SavedSchedule, now: datetime) -> pb.Schedule:
    """A schedule of a revision as its message."""
    schedule, document = saved.schedule, ScheduleDocument.read(saved.version.document)
    timing = Timing.read(document)
    made = pb.Schedule(
        id=schedule.id,
        blob_id=schedule.blob_id,
        revision_id=saved.revision.id,
        alias=schedule.alias,
        spec=to_spec(document),
        digest=saved.version.digest,
        target_blob_id=document.invocation_target.blob_id,
        target_revision_id=document.invocation_target.revision_id,
        actor_id=saved.version.actor_id,
        state=STATES[state_of(schedule, timing, now, armed=saved.armed)],
        enabled=schedule.enabled,
        pause=_pause(schedule),
        armed=saved.armed,
        invocation_timestamp=_time(timing.instant),
        start_timestamp=_time(timing.start),
        end_timestamp=_time(timing.end),
        last_nominal_time=_time(schedule.last_nominal_time),
        create_time=to_timestamp(saved.entry.create_time),
        update_time=to_timestamp(max(saved.entry.update_time, schedule.update_time)),
        etag=schedule.etag,
    )
    if saved.armed and schedule.next_nominal_time is not None and schedule.next_due_time is not None:
        made.next_nominal_time.CopyFrom(to_timestamp(schedule.next_nominal_time))
        made.next_due_time.CopyFrom(to_timestamp(schedule.next_due_time))
    return made


def _pause(schedule: Schedule) -> pb.SchedulePause | None:
    if schedule.pause_time is None:
        return None
    return pb.SchedulePause(
        actor_id=schedule.paused_by or "", note=schedule.pause_note, time=to_timestamp(schedule.pause_time)
    )


def _time(time: datetime | None) -> Timestamp | None:
    return None if time is None else to_timestamp(time)
