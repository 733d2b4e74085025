"""Firings: the times of schedules, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class FiringKind(StrEnum):
    """Why a schedule fired."""

    SCHEDULED = "scheduled"
    CAUGHT_UP = "caught_up"
    TRIGGERED = "triggered"
    BACKFILLED = "backfilled"


class FiringStatus(StrEnum):
    """What became of the invocation."""

    SUCCESS = "success"
    ACCESS_ERROR = "access_error"
    INVOCATION_ERROR = "invocation_error"
    SKIPPED = "skipped"


MISSED = "MISSED"
"""The reason of a firing that tells of times that have passed while nothing fired, at the last of them."""


@dataclass(slots=True)
class Firing:
    """A firing's record, which is filled in until it is stored. Its id is the cause of the execution that it started.

    `revision`, `session` and `definition` are the target as it was invoked. `reason` and `message` say why it is no success.
    `execution_state` and `end_time` tell how the execution ended; None until it has.

    `sequence` is its number in the log of its blob, and `end_sequence` that of the execution's end, which is a line of the
    log of its own.
    """

    id: str
    organization_id: str
    blob_id: str
    schedule_id: str
    schedule_alias: str
    kind: FiringKind
    nominal_time: datetime
    due_time: datetime
    fire_time: datetime
    tzdata: str
    schedule_digest: str
    actor_id: str
    revision: str
    session: str
    definition: str
    status: FiringStatus
    reason: str
    message: str
    execution_id: str | None
    session_id: str | None
    execution_state: str | None
    end_time: datetime | None
    sequence: int
    end_sequence: int | None
