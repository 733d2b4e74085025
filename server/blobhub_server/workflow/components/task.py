"""Components that are done by the user's own programs."""

from __future__ import annotations

from typing import Any

from blobhub_server.blobtypes.reference import is_alias
from blobhub_server.workflow.components.awaits import Await, task
from blobhub_server.workflow.components.contract import (
    CONTROL_IN,
    ERROR,
    FAILURE,
    SUCCESS,
    ComponentError,
    Inputs,
    PortSpec,
    TaskComponent,
)
from blobhub_server.workflow.components.spans import timeout_of, timeout_problems
from blobhub_server.workflow.values import unwrap


class Call(TaskComponent):
    """Puts a task on a queue of the organization and waits until a worker, which is a program of yours, has done it: at
    least once, with the same idempotency key each time that one begins. Fails with the reason that the worker gives, and
    with `TIMEOUT` when nobody has done it in time; what may pass is tried again if the policy says so.
    """

    type = "task.call"
    title = "Call"
    ports = (
        CONTROL_IN,
        SUCCESS,
        FAILURE,
        PortSpec(
            category="data_input",
            route="queue",
            description="The name of the queue in the organization, such as `resize`.",
            value_type="text",
            required=True,
        ),
        PortSpec(category="data_input", route="input", description="What the worker is given; null unless it is set."),
        PortSpec(
            category="data_input",
            route="timeout",
            description="After how many seconds the step fails, also while a worker is at it; never unless it is set.",
            value_type="float",
        ),
        PortSpec(category="data_output", route="result", description="What the worker answers."),
        ERROR,
    )
    routes = ("success", "failure")

    def run(self, inputs: Inputs) -> Await:
        """Wait for a worker."""
        settings = {name: unwrap(inputs[name]) for name in ("queue", "timeout") if name in inputs}
        for name, message in _problems(settings):
            raise ComponentError(f"`{name}` {message}", reason="INVALID_INPUT", retryable=False)
        return task(settings["queue"], timeout_of(settings))

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """The queue must be a name, and a timeout a span."""
        return _problems({name: unwrap(value) for name, value in settings.items()})


def _problems(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with plain values, by data input."""
    found, queue = [], settings.get("queue")
    if "queue" in settings and not (isinstance(queue, str) and is_alias(queue)):
        found.append(("queue", "must be the name of a queue: 1 to 63 characters of a-z, 0-9, - and _"))
    return found + timeout_problems(settings)
