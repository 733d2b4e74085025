"""Tells operators which executions failed, and why."""

from __future__ import annotations

from blobhub_server.bounded_log import BoundedLog
from blobhub_server.workflow.rules.execution import CauseKind, Execution
from blobhub_server.workflow.runtime.embedded.unit import Unit


class FailureLog:
    """A line of the log for each execution that fails, in bounded numbers. It repeats nothing of what that worked on."""

    def __init__(self) -> None:
        self._log = BoundedLog("execution_failed")

    def note(self, unit: Unit) -> None:
        """Write a line when an execution has failed with a unit, which is durable."""
        execution = unit.execution
        if execution.state != "failed" or execution.failure is None:
            return
        reason = execution.failure["reason"]
        errors = [record for record in unit.records if record.type == "processor.error"]
        self._log.write(
            "warning",
            (reason,),
            execution_id=execution.id,
            blob_id=execution.blob_id,
            definition=execution.definition_alias,
            reason=reason,
            component=errors[-1].component_id if errors else "",
            caller=execution.actor_id,
            **_origin(execution),
        )


def _origin(execution: Execution) -> dict[str, str]:
    """What started an execution, where that was no call."""
    cause = execution.cause
    return {} if cause is None or cause.kind is CauseKind.REQUEST else {cause.kind: cause.id}
