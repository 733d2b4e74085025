"""The errors of schedulers, each with its gRPC status code and its reason.

The reasons are the values of `SchedulerErrorReason` in `protos/blobhub/v1/scheduler_error.proto`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from blobhub_server.errors import BlobHubError, Violation

TYPE = "blobhub.compute.scheduler"
"""The name of the blob type, which is the domain of its reasons."""


class SchedulerError(BlobHubError):
    """The base class of the errors of schedulers."""

    domain = TYPE


class InvalidSchedule(SchedulerError):
    """The spec of a schedule is not one."""

    code, reason = "INVALID_ARGUMENT", "INVALID_SCHEDULE"

    def __init__(self, violations: Sequence[Violation]) -> None:
        said = "; ".join(f"{each.field}: {each.message}" for each in violations[:5])
        super().__init__(f"not a schedule: {said}", violations=violations)


class ScheduleCompleted(SchedulerError):
    """The schedule has no times to come, and cannot be updated."""

    code, reason = "FAILED_PRECONDITION", "SCHEDULE_COMPLETED"

    def __init__(self) -> None:
        super().__init__("the schedule is completed and cannot be updated; delete it and create another")


class ScheduleNotArmed(SchedulerError):
    """The schedule is not the one of the blob's default revision, and nothing else fires."""

    code, reason = "FAILED_PRECONDITION", "SCHEDULE_NOT_ARMED"

    def __init__(self) -> None:
        super().__init__(
            "the schedule is not that of the default revision; make its revision the default one, or save it there"
        )


class BackfillRefused(SchedulerError):
    """The target refuses a time that is to be backfilled."""

    code, reason = "FAILED_PRECONDITION", "BACKFILL_REFUSED"

    def __init__(self, nominal_time: datetime, refusal: str, message: str) -> None:
        super().__init__(
            f"the time {nominal_time.isoformat()} is refused: {message}",
            metadata={"nominal_time": nominal_time.isoformat(), "refusal": refusal},
        )
        self.nominal_time = nominal_time


class BackfillForgotten(SchedulerError):
    """Firings of times that are to be backfilled may have been removed, and the times would fire twice."""

    code, reason = "FAILED_PRECONDITION", "BACKFILL_FORGOTTEN"

    def __init__(self, forgotten: datetime, first_time: datetime | None) -> None:
        first = "" if first_time is None else first_time.isoformat()
        super().__init__(
            f"firings of times up to {forgotten.isoformat()} are not kept any more, so it is not known which of them have "
            + (
                f"fired; the first time that can be backfilled is {first}"
                if first
                else "fired; no later time can be backfilled"
            ),
            metadata={"forgotten_time": forgotten.isoformat(), "first_time": first},
        )
