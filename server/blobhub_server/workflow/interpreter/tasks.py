"""What a turn does about tasks of workers: which steps have one now, and which do not wait for theirs any more."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blobhub_server.workflow.components.awaits import AwaitKind
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter.activation import FINALLY, ROOT
from blobhub_server.workflow.interpreter.state import ExecutionState, Step
from blobhub_server.workflow.values import unwrap


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """A task that an attempt at a step waits for, until the unix time `until` (None: without an end).

    `in_finally` says that the step is in what a `finally` leads to, which is run also when the execution is stopped.
    """

    step: int
    attempt: int
    component_id: str
    queue: str
    input: Any
    until: float | None
    in_finally: bool


@dataclass(frozen=True, slots=True)
class TaskTurn:
    """What a turn does about tasks: those to put on queues, and the attempts (step and number) whose tasks are over."""

    requests: Sequence[TaskRequest] = ()
    over: Sequence[tuple[int, int]] = ()


NO_TASKS = TaskTurn()


def task_turn(graph: Graph, before: ExecutionState, after: ExecutionState, touched: Collection[int]) -> TaskTurn:
    """What a turn from one state to another does about tasks; `touched` are the steps that something has happened to."""
    if not graph.has_tasks:
        return NO_TASKS
    steps = sorted(before.open if after.ended else {*touched, *after.dropped})
    waited, waits = _waiting(before.open, steps), _waiting(after.open, steps)
    requests = [
        TaskRequest(
            step=number,
            attempt=step.attempt,
            component_id=step.component_id,
            queue=step.awaits.details["queue"],
            input=unwrap(step.inputs.get("input")),
            until=step.until,
            in_finally=_is_in_finally(after, step.activation),
        )
        for number, step in waits.items()
        if step.awaits is not None and not _same_attempt(waited.get(number), step)
    ]
    over = [(number, step.attempt) for number, step in waited.items() if not _same_attempt(waits.get(number), step)]
    return TaskTurn(requests=requests, over=over)


def _waiting(steps: Mapping[int, Step], numbers: Sequence[int]) -> dict[int, Step]:
    """Those of some steps that wait for a worker."""
    found = ((number, steps.get(number)) for number in numbers)
    return {
        number: step
        for number, step in found
        if step is not None and step.awaits is not None and step.awaits.kind is AwaitKind.TASK
    }


def _is_in_finally(state: ExecutionState, number: int) -> bool:
    """Whether an activation is that of a `finally`, or within one."""
    while number != ROOT:
        activation = state.activations[number]
        if activation.part == FINALLY:
            return True
        number = activation.parent
    return False


def _same_attempt(one: Step | None, other: Step) -> bool:
    return one is not None and one.attempt == other.attempt
