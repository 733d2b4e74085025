"""Why a call failed, as a value.

try:
    await hub.blobs.UpdateBlob(request)
except CallError as error:
    if error.error_reason == ERROR_REASON_STALE_ETAG:
        request.etag = error.metadata["etag"]
"""

from __future__ import annotations

from typing import Any, Self

import grpc
from blobhub.v1.error_pb2 import ErrorReason
from google.rpc import error_details_pb2, status_pb2

DETAILS = "grpc-status-details-bin"
DOMAIN = "blobhub"
"""Whose the reasons of `ErrorReason` are; others are those of blob types."""
STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Unreachable(Exception):
    """No server answers at the address."""


class LogGap(Exception):
    """The server sent an event that does not follow the one before it, which is a bug of the server."""


class CallError(grpc.aio.AioRpcError):
    """Why a call failed, of the asynchronous client and of the other one.

    Its text has the reason, the message, and those violations that the message does not mention.
    """

    reason: str
    """Such as NOT_FOUND; empty where the server did not say."""
    domain: str
    """Whose reason it is: `blobhub`, or the type of a blob."""
    metadata: dict[str, str]
    violations: list[error_details_pb2.BadRequest.FieldViolation]
    retry_seconds: float
    """How long the server says to wait; 0 where it does not."""

    def __init__(self, *told: Any) -> None:
        super().__init__(*told)
        info, request, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        for detail in status_details(self):
            _ = detail.Unpack(info) or detail.Unpack(request) or detail.Unpack(retry)
        self.reason, self.domain, self.metadata = info.reason, info.domain, dict(info.metadata)
        self.violations = list(request.field_violations)
        self.retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()

    @classmethod
    def of(cls, error: Any) -> Self:
        """The same error of gRPC, typed."""
        if isinstance(error, cls):
            return error
        trailing = grpc.aio.Metadata(*((key, value) for key, value in error.trailing_metadata() or ()))
        return cls(error.code(), grpc.aio.Metadata(), trailing, error.details(), error.debug_error_string())

    @classmethod
    def of_status(cls, status: status_pb2.Status) -> Self:
        """What an operation has failed with."""
        trailing = grpc.aio.Metadata((DETAILS, status.SerializeToString()))
        return cls(STATUS_CODES[status.code], grpc.aio.Metadata(), trailing, status.message)

    @property
    def error_reason(self) -> ErrorReason.ValueType:
        """The reason as a value of the contract; unspecified where it is a type's own."""
        known = self.domain == DOMAIN and f"ERROR_REASON_{self.reason}" in ErrorReason.DESCRIPTOR.values_by_name
        return ErrorReason.Value(f"ERROR_REASON_{self.reason}" if known else "ERROR_REASON_UNSPECIFIED")

    @property
    def is_temporary(self) -> bool:
        """Whether the same may succeed a little later.

        RESOURCE_EXHAUSTED may, if the server says when. Without that it is a limit that waiting does not change, or a
        message that is too large for this client, which it would be each time.
        """
        if self.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return self.retry_seconds > 0
        return self.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

    def __str__(self) -> str:
        message = self.details() or ""
        unsaid = (each for each in self.violations if each.description not in message)
        more = (f"; {each.field}: {each.description}".replace("; : ", "; ") for each in unsaid)
        return f"{self.reason or self.code().name}: {message}{''.join(more)}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.code().name} {self}>"


def reason(error: grpc.RpcError) -> str:
    """Why a call failed: the name of an `ErrorReason` without its prefix; empty when the server did not say."""
    return CallError.of(error).reason


def status_details(error: Any) -> list[Any]:
    """The details that came with a status."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS:
            return list(status_pb2.Status.FromString(value).details)
    return []
