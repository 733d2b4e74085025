"""Operations: long work that a call begins, and that goes on after its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from blobhub_server.errors import BlobHubError

MAX_ATTEMPTS = 3
"""How many servers in a row may go down under an operation before it is failed."""


class OperationState(Enum):
    """Where an operation is. The last three are final."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED})


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation.

    `digest` is that of the object that it needs while it is open, None for none. `done_millionths` is how much is done of
    all. `error` is an encoded `google.rpc.Status`, `response` an encoded `google.protobuf.Any`. `sequence` goes up with each
    change. `fence` goes up whenever a server takes the operation: who wrote it down is compared at every write. `attempts`
    is how many servers in a row have taken it without giving it back or ending it.
    """

    id: str
    organization_id: str
    blob_id: str
    revision_id: str
    kind: str
    data: Mapping[str, Any]
    digest: str | None
    actor_id: str
    state: OperationState
    stage: str
    done_millionths: int | None
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    error: bytes | None
    response: bytes | None
    sequence: int
    fence: int
    attempts: int


class OperationEnded(BlobHubError):
    """An operation that has succeeded or failed cannot be cancelled."""

    code, reason = "FAILED_PRECONDITION", "OPERATION_ENDED"

    def __init__(self, state: OperationState) -> None:
        super().__init__(f"the operation has {state.value} and cannot be cancelled", metadata={"state": state.name})


class OperationPoisoned(BlobHubError):
    """Servers in a row went down while they ran an operation."""

    code, reason = "INTERNAL", "OPERATION_POISONED"

    def __init__(self, attempts: int) -> None:
        super().__init__(
            f"each of {attempts} servers in a row went down while it ran the operation, so no further one tries",
            metadata={"attempts": str(attempts)},
        )
