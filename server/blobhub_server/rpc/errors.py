"""From errors to statuses: the only place where that happens.

A status carries a `google.rpc.ErrorInfo` with the reason, and `BadRequest`, `ResourceInfo`, `QuotaFailure` or
`RetryInfo` where they help (https://google.aip.dev/193). What is not a BlobHubError is logged under an id, and the
caller gets the id and nothing else.
"""

from __future__ import annotations

import uuid

import grpc
import structlog
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2

from blobhub_server.errors import BlobHubError, Internal, LimitExceeded

log = structlog.get_logger()

DOMAIN = "blobhub"
TRAILER = "grpc-status-details-bin"

MAX_VIOLATIONS = 50
MAX_VIOLATION_BYTES = 4096
"""Clients accept 8 KiB of metadata by default, so a status carries as many violations as surely fit."""


def known(error: Exception, method: str) -> BlobHubError:
    """The error itself when it is one of ours; else an Internal whose id the log has the cause under."""
    if isinstance(error, BlobHubError):
        return error
    internal = Internal(str(uuid.uuid4()))
    log.error("internal_error", method=method, error_id=internal.metadata["error_id"], exc_info=error)
    return internal


def status_of(error: BlobHubError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Code, message and trailers of an error."""
    code = grpc.StatusCode[error.code]
    packed = []
    for detail in _details(error):
        item = any_pb2.Any()
        item.Pack(detail)
        packed.append(item)
    status = status_pb2.Status(code=code.value[0], message=error.message, details=packed)
    return code, error.message, ((TRAILER, status.SerializeToString()),)


def _details(error: BlobHubError) -> list[Message]:
    made: list[Message] = [details.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)]
    if error.violations:
        made.append(_bad_request(error))
    if error.resource:
        made.append(details.ResourceInfo(resource_type=error.resource[0], resource_name=error.resource[1]))
    if isinstance(error, LimitExceeded):
        violation = details.QuotaFailure.Violation(subject=error.metadata["limit"], description=error.message)
        made.append(details.QuotaFailure(violations=[violation]))
    if error.retry_after is not None:
        made.append(
            details.RetryInfo(
                retry_delay=Duration(nanos=int(error.retry_after * 1e9) % 10**9, seconds=int(error.retry_after))
            )
        )
    return made


def _bad_request(error: BlobHubError) -> details.BadRequest:
    made = details.BadRequest()
    for count, violation in enumerate(error.violations):
        if count == MAX_VIOLATIONS or made.ByteSize() > MAX_VIOLATION_BYTES:
            left = len(error.violations) - count
            made.field_violations.add(field="", description=f"and {left} more")
            break
        made.field_violations.add(field=violation.field[:256], description=violation.message[:512])
    return made
