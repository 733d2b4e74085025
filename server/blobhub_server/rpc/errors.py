"""Turns errors into statuses. No other module does.

A status carries a `google.rpc.ErrorInfo` with the reason and its domain, and `BadRequest`, `ResourceInfo`, `QuotaFailure` or
`RetryInfo` where they help (https://google.aip.dev/193). What is not a BlobHubError is logged under an id, and the
caller gets the id and nothing else.
"""

from __future__ import annotations

import uuid

import grpc
import structlog
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2

from blobhub_server.errors import BlobHubError, Internal, LimitExceeded, Overloaded
from blobhub_server.rpc.wire import to_duration
from blobhub_server.scarcity import is_scarcity

log = structlog.get_logger()

TRAILER = "grpc-status-details-bin"

MAX_TEXT_BYTES = 512
MAX_VIOLATIONS_BYTES = 2560
"""By default clients accept 8 KiB of metadata and may drop a longer status, so errors are cut to a size that always fits.

A message is sent twice: in the details, and percent-encoded, where a byte may become three. Base64 makes the details a third
longer.
"""


def to_blobhub_error(error: BaseException, method: str) -> BlobHubError:
    """The error itself when it is a BlobHubError; else an Internal, after logging the error under its id.

    It is Overloaded where the system has no thread or descriptor to give: libraries begin threads of their own.
    """
    if isinstance(error, BlobHubError):
        return error
    if is_scarcity(error):
        log.warning("system_has_nothing_to_give", method=method, error=str(error))
        return Overloaded()
    internal = Internal(str(uuid.uuid4()))
    log.error("internal_error", method=method, error_id=internal.metadata["error_id"], exc_info=error)
    return internal


def status_of(error: BlobHubError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Code, message and trailers of an error."""
    status = to_status(error)
    return grpc.StatusCode[error.code], status.message, ((TRAILER, status.SerializeToString()),)


def to_status(error: BlobHubError) -> status_pb2.Status:
    """An error as its message."""
    packed = []
    for detail in _details(error):
        item = any_pb2.Any()
        item.Pack(detail)
        packed.append(item)
    code = grpc.StatusCode[error.code].value[0]
    return status_pb2.Status(code=code, message=_cut(error.message), details=packed)


def _details(error: BlobHubError) -> list[Message]:
    metadata = {key: _cut(value, MAX_TEXT_BYTES // 2) for key, value in error.metadata.items()}
    made: list[Message] = [details.ErrorInfo(reason=error.reason, domain=error.domain, metadata=metadata)]
    if error.violations:
        made.append(_bad_request(error))
    if error.resource:
        kind, name = error.resource
        made.append(details.ResourceInfo(resource_type=kind, resource_name=_cut(name)))
    if isinstance(error, LimitExceeded):
        violation = details.QuotaFailure.Violation(subject=error.metadata["resource"], description=error.message)
        made.append(details.QuotaFailure(violations=[violation]))
    if error.retry_after_seconds is not None:
        made.append(details.RetryInfo(retry_delay=to_duration(error.retry_after_seconds)))
    return made


def _bad_request(error: BlobHubError) -> details.BadRequest:
    """The first violations, as many as fit, and the number of the others."""
    made = details.BadRequest()
    for count, violation in enumerate(error.violations):
        item = details.BadRequest.FieldViolation(
            field=_cut(violation.field, MAX_TEXT_BYTES // 2), description=_cut(violation.message)
        )
        if made.ByteSize() + item.ByteSize() > MAX_VIOLATIONS_BYTES:
            made.field_violations.add(field="", description=f"and {len(error.violations) - count} more")
            break
        made.field_violations.append(item)
    return made


def _cut(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """The text in at most `limit` bytes of UTF-8. A lone surrogate, which JSON can hold, becomes a `?`."""
    data = text.encode(errors="replace")
    return data.decode() if len(data) <= limit else data[: limit - 3].decode(errors="ignore") + "…"
