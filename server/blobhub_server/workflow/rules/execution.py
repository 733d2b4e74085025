"""Executions: one invocation of a definition each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from blobhub_server.blobtypes import json_text
from blobhub_server.workflow.errors import ExecutionEnded
from blobhub_server.workflow.interpreter import TERMINAL

DEFAULT_STEP_LIMIT = 10_000
STOPPING = "stopping"
"""The state of an execution that was asked to stop."""
ACTIVE = datetime(1970, 1, 1, tzinfo=UTC)
"""The wake time of an execution that has something to do."""
NEVER = datetime(9999, 1, 1, tzinfo=UTC)
"""The wake time of one that nothing but a message wakes."""


class CauseKind(StrEnum):
    """What can start an execution."""

    REQUEST = "request"
    """A call with a `request_id`: the id is that of the caller, the method and the request."""
    FIRING = "firing"
    """A schedule that fired: the id is the firing's."""
    STEP = "step"
    """A step of another execution: the id is the execution's, the step's, and how many attempts at that have failed."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What an execution was started for. A cause starts one execution, however often and on whichever server it comes."""

    kind: CauseKind
    id: str


@dataclass(slots=True)
class Execution:
    """An execution: what was requested, and the projection of its log.

    `blob_id` is the blob that the session is in; the definition is in the revision `revision_id` of `definition_blob_id`.
    `actor_id` is on whose behalf it was started (`Caller.actor_id`). `cause` is None for a start that cannot be repeated.
    `owner` is the server that runs it. `fence` counts the changes of owner; a write under an older one is refused.
    `last_message` is the number of the last message to it.
    `recoveries` says how often in a row it was recovered and went on, and journaled nothing of that. `timeout` is None for
    no limit. `result` is JSON text in UTF-8, None where there is none. `failure` is as `interpreter/failure.py` makes it.
    `signals` and `signal_bytes` say how many signals it keeps that no step has waited for yet. `parent_id` is the execution
    whose step has started it, None where that was something else; `depth` is how many executions are above it like that.
    `wake_time` says until when it rests, and `rest_time` since when, both by the clock of its owner. `adopted` says that it
    was resting when its owner took it over, and has done nothing since.
    """

    id: str
    organization_id: str
    session_id: str
    blob_id: str
    revision_id: str
    definition_blob_id: str
    definition_id: str
    definition_alias: str
    definition_digest: str
    actor_id: str
    cause: Cause | None
    owner: str | None
    fence: int
    last_message: int
    recoveries: int
    state: str
    step_limit: int
    timeout: timedelta | None
    result: bytes | None
    failure: dict[str, Any] | None
    last_execution_sequence: int
    create_time: datetime
    end_time: datetime | None
    signals: int = 0
    signal_bytes: int = 0
    parent_id: str | None = None
    depth: int = 0
    wake_time: datetime = ACTIVE
    rest_time: datetime = ACTIVE
    adopted: bool = False

    @property
    def rests(self) -> bool:
        """Whether it only waits. Then it may be in no server's memory."""
        return self.wake_time > ACTIVE

    @property
    def first_execution_sequence(self) -> int:
        """The number of the first event that the log keeps; 0 while there is none. Nothing is ever cut off a log."""
        return min(1, self.last_execution_sequence)

    @property
    def ended(self) -> bool:
        """True in a terminal state."""
        return self.state in TERMINAL


def require_stoppable(execution: Execution) -> None:
    """Raise ExecutionEnded when the execution has completed or failed; stopping twice is fine."""
    if execution.state in ("completed", "failed"):
        raise ExecutionEnded(execution.state)


def takes_signals(execution: Execution) -> bool:
    """Whether an execution may still go on because of a signal."""
    return not execution.ended and execution.state != STOPPING


def require_signallable(execution: Execution) -> None:
    """Raise ExecutionEnded when the execution takes no signals any more, because it has ended or is stopping."""
    if not takes_signals(execution):
        raise ExecutionEnded(execution.state)


def checked_input(input_data: Mapping[str, Any]) -> dict[str, Any]:
    """The input data as plain JSON. Raises InvalidValue where a value breaks the bounds of one, or all do together."""
    texts = {alias: json_text.encode(f"spec.input_data[{alias}]", value) for alias, value in input_data.items()}
    json_text.require_bounds_of_all("spec.input_data", texts.values())
    return {alias: json_text.load(text) for alias, text in texts.items()}
