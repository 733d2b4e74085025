"""Where a schedule is in its life."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from blobhub_server.scheduler.errors import BackfillForgotten, ScheduleCompleted
from blobhub_server.scheduler.rules.schedule import Schedule
from blobhub_server.scheduler.rules.timing import Timing


class State(StrEnum):
    """Where a schedule of a revision is in its life."""

    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"


def state_of(schedule: Schedule, timing: Timing, now: datetime, *, armed: bool) -> State:
    """The state of a schedule with the times of a revision, which may be the ones that are armed.

    One whose last time has come is completed once that was taken, which is when the next one is reckoned.
    """
    waits = armed and schedule.next_nominal_time is not None
    if not waits and timing.next_after(now) is None:
        return State.COMPLETED
    return State.ACTIVE if schedule.pause_time is None else State.PAUSED


def require_known(schedule: Schedule, timing: Timing, start: datetime) -> None:
    """Raise BackfillForgotten when it is not known any more what has fired from an instant on."""
    forgotten = schedule.forgotten_nominal_time
    if forgotten is not None and start <= forgotten:
        raise BackfillForgotten(forgotten, timing.next_after(forgotten))


def require_open(state: State) -> None:
    """Raise ScheduleCompleted when it is completed."""
    if state is State.COMPLETED:
        raise ScheduleCompleted
