"""What becomes of one time of one schedule, and the firing that tells of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from blobhub_server.blobtypes.capabilities import Invocation, InvocationResult
from blobhub_server.blobtypes.expressions import ExpressionError
from blobhub_server.errors import BlobHubError, PermissionDenied
from blobhub_server.scheduler.engine.decision import MAX_COUNTED, PassOver
from blobhub_server.scheduler.rules.document import ScheduleDocument
from blobhub_server.scheduler.rules.firing import MISSED, Firing, FiringKind, FiringStatus
from blobhub_server.scheduler.rules.schedule import Schedule, ScheduleVersion
from blobhub_server.scheduler.rules.template import FiringContext, render, time_text
from blobhub_server.scheduler.rules.timing import Timing, due_time
from blobhub_server.scheduler.timetable import TZDATA_VERSION

OVERLAP, QUEUE_FULL, SUPERSEDED, NOT_ARMED = "OVERLAP", "QUEUE_FULL", "SUPERSEDED", "NOT_ARMED"
"""Why times are skipped, beside MISSED."""
MAX_MESSAGE = 1000
_SMALLEST = timedelta(microseconds=1)


MAX_KEPT_CHARACTERS = 4096


@lru_cache(maxsize=4096)
def _read_short(text: str) -> tuple[ScheduleDocument, Timing]:
    document = ScheduleDocument.read(text)
    return document, Timing.read(document)


def read_document(text: str) -> tuple[ScheduleDocument, Timing]:
    """A document and its times. Those of short documents are kept, because a schedule fires again and again.

    Raises what `ScheduleDocument.read` and `Timing.read` raise.
    """
    return _read_short(text) if len(text) <= MAX_KEPT_CHARACTERS else _read_short.__wrapped__(text)


@dataclass(frozen=True, slots=True)
class Armed:
    """A schedule whose row is locked, with the document that is at work, or was before the schedule was disarmed."""

    schedule: Schedule
    version: ScheduleVersion
    document: ScheduleDocument
    timing: Timing

    def new_firing(self, firing_id: str, kind: FiringKind, nominal_time: datetime, now: datetime) -> Firing:
        """A firing of which nothing is known yet; its number is to be taken."""
        schedule, target = self.schedule, self.document.invocation_target
        return Firing(
            id=firing_id,
            organization_id=schedule.organization_id,
            blob_id=schedule.blob_id,
            schedule_id=schedule.id,
            schedule_alias=schedule.alias,
            kind=kind,
            nominal_time=nominal_time,
            due_time=due_time(schedule.id, nominal_time, self.document.jitter),
            fire_time=now,
            tzdata=TZDATA_VERSION,
            schedule_digest=self.version.digest,
            actor_id=self.version.actor_id,
            revision=target.reference,
            session=target.session,
            definition=target.definition,
            status=FiringStatus.SUCCESS,
            reason="",
            message="",
            execution_id=None,
            session_id=None,
            execution_state=None,
            end_time=None,
            sequence=0,
            end_sequence=None,
        )

    def invocation(self, firing: Firing) -> Invocation:
        """What a firing invokes. Raises ExpressionError for an input that has no value."""
        context = FiringContext(
            nominal_time=firing.nominal_time,
            previous_time=self._previous_time(firing),
            schedule_id=firing.schedule_id,
            schedule_alias=firing.schedule_alias,
            timezone=self.document.timezone,
        )
        return Invocation(
            cause=firing.id,
            actor_id=firing.actor_id,
            revision=firing.revision,
            definition=firing.definition,
            session=firing.session,
            inputs=render(self.document, context),
        )

    def _previous_time(self, firing: Firing) -> datetime | None:
        """The last time that had its turn; where that is later, and in a backfill, the one before by the timetable."""
        last = self.schedule.last_nominal_time
        if firing.kind is not FiringKind.BACKFILLED and (last is None or last < firing.nominal_time):
            return last
        return self.timing.last_until(firing.nominal_time - _SMALLEST)


def started(firing: Firing, result: InvocationResult) -> Firing:
    """A firing that has started an execution, which may have ended at once."""
    firing.execution_id, firing.session_id, firing.end_time = result.execution_id, result.session_id, result.end_time
    firing.execution_state = None if result.end_time is None else result.state
    return firing


def refused(firing: Firing, error: BlobHubError | ExpressionError) -> Firing:
    """A firing whose target was not invoked, for a reason."""
    access = isinstance(error, PermissionDenied)
    status = FiringStatus.ACCESS_ERROR if access else FiringStatus.INVOCATION_ERROR
    firing.status, firing.reason, firing.message = status, error.reason, error.message[:MAX_MESSAGE]
    return firing


def broken(firing: Firing) -> Firing:
    """A firing that an unforeseen error has ended."""
    message = "an unforeseen error, which the server has logged"
    firing.status, firing.reason, firing.message = FiringStatus.INVOCATION_ERROR, "INTERNAL", message
    return firing


def skipped(firing: Firing, reason: str, message: str) -> Firing:
    """A firing that was left out."""
    firing.status, firing.reason, firing.message = FiringStatus.SKIPPED, reason, message
    return firing


def overlapping(firing: Firing) -> Firing:
    """A firing that was left out because something that the schedule has started runs."""
    return skipped(firing, OVERLAP, "an execution of the schedule has not ended")


def missed(firing: Firing, passed: PassOver, policy: str) -> Firing:
    """The firing that tells of times that were passed over."""
    if passed.count == 1:
        message = f"the time passed while nothing fired, and catch_up is {policy.upper()}"
    else:
        count = f"more than {MAX_COUNTED}" if passed.count > MAX_COUNTED else str(passed.count)
        range_ = f"from {time_text(passed.first)} to {time_text(passed.last)}"
        message = f"{count} times {range_} passed while nothing fired, and catch_up is {policy.upper()}"
    return skipped(firing, MISSED, message)
