"""The errors of workflows, each with its gRPC status code and its reason.

The reasons are the values of `WorkflowErrorReason` in `protos/blobhub/v1/workflow_error.proto`.
"""

from __future__ import annotations

from collections.abc import Sequence

from blobhub_server.errors import BlobHubError, Violation

TYPE = "blobhub.compute.workflow"
"""The name of the blob type, which is the domain of its reasons."""


_HAS = {"stopped": "was", "stopping": "is"}


class WorkflowError(BlobHubError):
    """The base class of the errors of workflows."""

    domain = TYPE


class InvalidDefinitionContent(WorkflowError):
    """A workflow definition cannot be read."""

    code, reason = "INVALID_ARGUMENT", "INVALID_DEFINITION"

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("not a workflow definition", violations=violations)


class DefinitionNotRunnable(WorkflowError):
    """The definition has problems that keep it from running."""

    code, reason = "FAILED_PRECONDITION", "DEFINITION_NOT_RUNNABLE"

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(f"the definition has {len(violations)} problems", violations=violations)


class SessionNotOpen(WorkflowError):
    """The session accepts no new executions or objects."""

    code, reason = "FAILED_PRECONDITION", "SESSION_NOT_OPEN"

    def __init__(self, state: str) -> None:
        super().__init__(f"the session is {state}", metadata={"state": state})


class CauseReused(WorkflowError):
    """The cause has started an execution in another blob."""

    code, reason = "ALREADY_EXISTS", "CAUSE_REUSED"

    def __init__(self, cause: str) -> None:
        super().__init__("what this is done for has started an execution of another blob", metadata={"cause": cause})


class LeaseLost(WorkflowError):
    """A lease of a task does not hold any more; `state` is the task's, empty where it is gone."""

    code, reason = "FAILED_PRECONDITION", "LEASE_LOST"

    def __init__(self, state: str) -> None:
        told = f"the task is {state}" if state else "the task is gone"
        super().__init__(f"the lease does not hold any more: {told}", metadata={"state": state})


class WorkerOverdue(WorkflowError):
    """A worker has let a lease run out, so the stream that gave it out has ended."""

    code, reason = "UNAVAILABLE", "WORKER_OVERDUE"

    def __init__(self) -> None:
        super().__init__("a lease that came by this stream has run out; lease again", retry_after_seconds=1.0)


class ExecutionEnded(WorkflowError):
    """The execution has already reached its terminal state, or is about to."""

    code, reason = "FAILED_PRECONDITION", "EXECUTION_ENDED"

    def __init__(self, state: str) -> None:
        super().__init__(f"the execution {_HAS.get(state, 'has')} {state}", metadata={"state": state})
