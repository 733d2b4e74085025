"""What went wrong, as people and programs are told: the reason, what is wrong, what to do next, and the exit code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import grpc
from blobhub_client import CallError, Unreachable


class ExitCode(IntEnum):
    """How a command ended. They are listed in docs/cli.md, and do not change."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_ALLOWED = 4
    NOT_FOUND = 5
    CONFLICT = 6
    DIFFERENT = 7
    FAILED = 8
    STOPPED = 9
    INTERRUPTED = 130


CODES = {
    grpc.StatusCode.UNAVAILABLE: ExitCode.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ExitCode.UNREACHABLE,
    grpc.StatusCode.UNAUTHENTICATED: ExitCode.NOT_ALLOWED,
    grpc.StatusCode.PERMISSION_DENIED: ExitCode.NOT_ALLOWED,
    grpc.StatusCode.NOT_FOUND: ExitCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: ExitCode.CONFLICT,
    grpc.StatusCode.ABORTED: ExitCode.CONFLICT,
}
NEXT = {
    "UNAUTHENTICATED": "log in with a key that works: blobhub login",
    "PERMISSION_DENIED": "see who you are to the server, and which roles you have: blobhub whoami",
    "NOT_FOUND": "look at what there is with the `list` command of the same noun",
    "RENAMED": "use the alias that it has now",
    "ALREADY_EXISTS": "choose another alias, or look at the one there is with `get`",
    "STALE_ETAG": "somebody else changed it: look at it again with `get`, then repeat the change",
    "WRONG_PHASE": "content is edited in a draft: blobhub revision draft BLOB",
    "NOT_EMPTY": "delete it with all that it holds: --cascade",
    "REVISION_IN_USE": "see what depends on it: blobhub revision dependents REVISION",
    "LIMIT_EXCEEDED": "see the limits and what is held: blobhub limit list PARENT",
    "AMBIGUOUS_REFERENCE": "name it by its id, which is in: blobhub revision list BLOB",
    "INVALID_DEFINITION": "see every problem with its place: blobhub definition check FILE",
    "DEFINITION_NOT_RUNNABLE": "see every problem with its place: blobhub definition check FILE",
    "INVALID_CONTENT": "repair what is listed in the draft, then commit again",
    "SESSION_NOT_OPEN": "open another session: blobhub session create REVISION",
    "EXECUTION_ENDED": "see how it ended: blobhub execution show EXECUTION",
    "UNKNOWN_BLOB_TYPE": "see the types that are installed: blobhub blob types",
    "WRONG_BLOB_TYPE": "see the blob's type: blobhub blob get BLOB",
    "SEQUENCE_OUT_OF_RANGE": "watch from a sequence that is still there; 0 is the beginning of what is kept",
    "LAST_ADMIN": "make somebody else an admin first: blobhub member create PARENT USER admin",
    "SCHEDULE_NOT_ARMED": "make its revision the default one: blobhub blob update BLOB --default-revision REVISION",
    "INTERNAL": "tell the operator of the server, who finds the cause in its log under the id",
}
"""What to do next, by reason."""
NEXT_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: "see what the command takes: {command} --help",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "wait a little, and try again",
    grpc.StatusCode.UNAVAILABLE: "wait a little, and try again",
    grpc.StatusCode.DEADLINE_EXCEEDED: "wait a little, and try again",
}
"""What to do next where the reason does not say more."""


class CommandError(Exception):
    """A command cannot go on, for a reason of its own and not the server's."""

    def __init__(self, message: str, *, code: ExitCode = ExitCode.USAGE, reason: str = "", next_step: str = "") -> None:
        super().__init__(message)
        self.message, self.code, self.reason, self.next_step = message, code, reason, next_step


@dataclass(frozen=True)
class Problem:
    """What went wrong."""

    code: ExitCode
    message: str
    reason: str = ""
    domain: str = ""
    violations: list[str] = field(default_factory=list)
    next_step: str = ""

    def lines(self) -> Iterator[tuple[str, str]]:
        """It in words, each line with its style."""
        yield f"blobhub: {self.reason}: {self.message}" if self.reason else f"blobhub: {self.message}", "red"
        for violation in self.violations:
            yield f"  {violation}", ""
        if self.next_step:
            yield f"next: {self.next_step}", "dim"

    def plain(self) -> dict[str, Any]:
        """It for programs."""
        return {
            "error": {
                "exit_code": int(self.code),
                "reason": self.reason,
                "domain": self.domain,
                "message": self.message,
                "violations": self.violations,
                "next": self.next_step,
            }
        }


def explain(error: Exception, command: str) -> Problem:
    """Say what an error means. Raises the error itself, if it is none that a command has to expect."""
    if isinstance(error, CommandError):
        return Problem(code=error.code, message=error.message, reason=error.reason, next_step=error.next_step)
    if isinstance(error, Unreachable):
        return Problem(
            code=ExitCode.UNREACHABLE,
            message=str(error),
            reason="UNREACHABLE",
            next_step="start a server there, or name another: blobhub login ADDRESS, --address, BLOBHUB_ADDRESS",
        )
    if isinstance(error, grpc.RpcError):
        return _explain_status(CallError.of(error), command)
    raise error


def _explain_status(error: CallError, command: str) -> Problem:
    code = error.code()
    next_step = NEXT.get(error.reason) or NEXT_BY_CODE.get(code, "")
    return Problem(
        code=CODES.get(code, ExitCode.REFUSED),
        message=error.details() or code.name,
        reason=error.reason or code.name,
        domain=error.domain,
        violations=[each for each in map(_violation, error.violations) if each not in (error.details() or "")],
        next_step=next_step.format(command=command),
    )


def _violation(found: Any) -> str:
    return f"{found.field}: {found.description}" if found.field else str(found.description)
