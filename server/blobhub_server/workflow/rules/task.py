"""Tasks: work of steps that the user's own programs do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.interpreter import TaskEnded

DEFAULT_LEASE = timedelta(seconds=30)
KEPT_ENDED = timedelta(hours=1)
"""How long a task that has ended is kept, at least, so that whoever says it again is answered again."""
MAX_WORKERS_LISTED = 1_000


class TaskState(StrEnum):
    """Where a task is. The last three are final."""

    WAITING = "waiting"
    LEASED = "leased"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Task:
    """A task. `step` and `step_attempt` say whose it is in its execution; `attempt` counts how often work on it was begun.

    `input` is JSON text, None once it has ended. `lost_leases` counts its leases that ran out. One that is `in_finally`
    outlives a stop of its execution. It may be leased from `available_time` on, by the database's clock: for a leased one
    that is when its lease runs out. `lease` is the id of its lease, or of its last one; `span` how long a lease lasts that
    is not extended.
    """

    id: str
    organization_id: str
    blob_id: str
    execution_id: str
    step: int
    step_attempt: int
    component_id: str
    queue: str
    input: str | None
    in_finally: bool
    state: TaskState
    attempt: int
    worker: str
    progress: str
    lease: str | None
    lost_leases: int
    span: timedelta | None
    available_time: datetime
    deadline: datetime | None
    create_time: datetime
    end_time: datetime | None

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts at the step."""
        return f"{self.execution_id}/{self.step}"


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as its worker names it: the queue of an organization, the task, and which of the task's leases it is."""

    organization_id: str
    queue: str
    task_id: str
    lease_id: str

    def __str__(self) -> str:
        return f"{self.organization_id}.{self.queue}.{self.task_id}.{self.lease_id}"


_LEASE = re.compile(r"([0-9a-f-]{36})[.]([a-z0-9_-]{1,63})[.]([0-9a-f-]{36})[.]([0-9a-f-]{36})")


def parse_lease(text: str) -> Lease | None:
    """The lease that a text names; None for what has not the form of one."""
    found = _LEASE.fullmatch(text)
    if found is None:
        return None
    return Lease(organization_id=found[1], queue=found[2], task_id=found[3], lease_id=found[4])


def lease_of(task: Task) -> Lease:
    """The lease of a task that a worker has."""
    assert task.lease is not None, "it was leased"
    return Lease(organization_id=task.organization_id, queue=task.queue, task_id=task.id, lease_id=task.lease)


def queue_topic(organization_id: str, queue: str) -> str:
    """The doorbell that is rung when something changes in a queue that workers, or watchers, may wait for."""
    return f"tasks {organization_id}/{queue}"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a worker could not do a task."""

    reason: str
    message: str
    retryable: bool


def completed(task: Task, result: Any) -> dict[str, Any]:
    """The body of the message that a task is done."""
    return {"step": task.step, "attempt": task.step_attempt, "result": result}


def failed(step: int, attempt: int, failure: Failure) -> dict[str, Any]:
    """The body of the message that the task of an attempt at a step could not be done."""
    error = {"reason": failure.reason, "message": failure.message, "retryable": failure.retryable}
    return {"step": step, "attempt": attempt, "error": error}


def task_ended(body: Mapping[str, Any]) -> TaskEnded:
    """What the body of a message says that has happened."""
    result: Outcome | ComponentError
    if "error" in body:
        error = body["error"]
        result = ComponentError(error["message"], reason=error["reason"], retryable=error["retryable"])
    else:
        result = Outcome(route="success", outputs={"result": body["result"]}, bounded=True)
    return TaskEnded(step=body["step"], attempt=body["attempt"], result=result)
