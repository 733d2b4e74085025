"""Children: executions that steps of other executions have started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blobhub_server.workflow.components.awaits import child as child_await
from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.interpreter import ChildEnded
from blobhub_server.workflow.interpreter.failure import bounded_details
from blobhub_server.workflow.rules.execution import Cause, CauseKind, Execution

STOPPED, DELETED, TOO_MUCH = "CHILD_STOPPED", "CHILD_DELETED", "CHILD_RESULT_LIMIT"


@dataclass(frozen=True, slots=True)
class Origin:
    """What has started a child: a step of an execution, after so many of its attempts had failed."""

    execution_id: str
    step: int
    failures: int

    @property
    def cause(self) -> Cause:
        """The child's cause: so each try at a step starts one execution, however often it is run."""
        return Cause(CauseKind.STEP, f"{self.execution_id}/{self.step}/{self.failures}")


def origin_of(execution: Execution) -> Origin | None:
    """What has started an execution; None where that was no step."""
    if execution.cause is None or execution.cause.kind is not CauseKind.STEP:
        return None
    execution_id, step, failures = execution.cause.id.split("/")
    return Origin(execution_id=execution_id, step=int(step), failures=int(failures))


def end_of(child: Execution, origin: Origin, result: Any) -> dict[str, Any]:
    """The body of the message that a child has ended; `result` is its result as JSON, if it has one."""
    body = _about(child, origin)
    if child.state == "failed":
        return body | {"error": _failed(child)}
    if child.state == "stopped":
        return body | {"error": _error(child.id, STOPPED, "was stopped", retryable=False)}
    return body if child.result is None else body | {"result": result}


def end_without_room(child: Execution, origin: Origin) -> dict[str, Any]:
    """The body of the message where there is no room for the result."""
    error = _error(child.id, TOO_MUCH, "has ended, and its result has no room beside others that its parent is to take in")
    return _about(child, origin) | {"error": error}


def deletion_of(child: Execution, origin: Origin) -> dict[str, Any]:
    """The body of the message that a child was deleted before its end."""
    error = _error(child.id, DELETED, "was deleted before its end", retryable=False)
    return _about(child, origin) | {"error": error}


def child_ended(body: Mapping[str, Any]) -> ChildEnded:
    """What the body of a message says that has happened."""
    result: Outcome | ComponentError
    if "error" in body:
        error = body["error"]
        result = ComponentError(
            error["message"], reason=error["reason"], retryable=error["retryable"], details=error["details"]
        )
    else:
        given = {"result": body["result"]} if "result" in body else {}
        result = Outcome(route="success", outputs={"execution_id": body["child"]["execution_id"]} | given, bounded=True)
    return ChildEnded(step=body["step"], failures=body["failures"], result=result, awaits=child_await(**body["child"]))


def _about(child: Execution, origin: Origin) -> dict[str, Any]:
    ids = {"execution_id": child.id, "session_id": child.session_id, "blob_id": child.blob_id}
    return {"step": origin.step, "failures": origin.failures, "child": ids}


def _error(execution_id: str, reason: str, what: str, *, retryable: bool = True, details: Any = None) -> dict[str, Any]:
    return {
        "reason": reason,
        "message": f"the execution {execution_id} {what}",
        "retryable": retryable,
        "details": {"execution_id": execution_id} if details is None else details,
    }


def _failed(child: Execution) -> dict[str, Any]:
    """The error of a step whose child has failed: with the child's reason, and its particulars as far as there is room."""
    failure = child.failure or {}
    reason = failure.get("reason") or "INTERNAL"
    about = {"execution_id": child.id, "component_id": failure.get("component_id", ""), "line": failure.get("line", 0)}
    more = about if failure.get("details") is None else about | {"details": failure["details"]}
    told = about if bounded_details(more) is None else more
    return _error(child.id, reason, f"failed: {failure.get('message', '')}", details=told)
