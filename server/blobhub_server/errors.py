"""The errors of the platform and what is below it, each with its gRPC status code and reason. A slice has its own.

Rules, stores and services raise these; `rpc/errors.py` alone turns them into statuses. A reason belongs to a domain. Those
of the domain `blobhub` are the values of `ErrorReason` in `protos/blobhub/v1/error.proto`, which documents the cause and
metadata of each; a test compares the two lists. This module does not import gRPC, so that rules can import it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a request: a dotted `field` path and a sentence."""

    field: str
    message: str


class BlobHubError(Exception):
    """The base class. `code` is the name of a gRPC status code, `reason` that of an error reason without its prefix.

    `domain` is whose reason it is: `blobhub`, or the name of a blob type.
    """

    domain: ClassVar[str] = "blobhub"
    code: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        resource: tuple[str, str] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        """`resource` is (type, name) for `ResourceInfo`; `retry_after_seconds` is in seconds, for `RetryInfo`."""
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.resource = resource
        self.retry_after_seconds = retry_after_seconds


class Internal(BlobHubError):
    """An unforeseen error. It is logged under an id, and the caller gets only the id."""

    code, reason = "INTERNAL", "INTERNAL"

    def __init__(self, error_id: str) -> None:
        super().__init__(f"internal error {error_id}", metadata={"error_id": error_id})


class InvalidRequest(BlobHubError):
    """The request breaks a constraint declared in the protos."""

    code, reason = "INVALID_ARGUMENT", "INVALID_REQUEST"

    def __init__(self, violations: Sequence[Violation]) -> None:
        said = "; ".join(f"{v.field}: {v.message}" if v.field else v.message for v in violations[:5])
        super().__init__(f"invalid request: {said}", violations=violations)


class UndecodableRequest(BlobHubError):
    """The request's bytes are not the method's request message."""

    code, reason = "INVALID_ARGUMENT", "UNDECODABLE_REQUEST"

    def __init__(self) -> None:
        super().__init__("the request cannot be decoded")


class InvalidReference(BlobHubError):
    """A reference does not follow the grammar."""

    code, reason = "INVALID_ARGUMENT", "INVALID_REFERENCE"

    def __init__(self, field: str, expected: str) -> None:
        message = f"not a reference; expected {expected}"
        super().__init__(f"{field}: {message}", violations=[Violation(field, message)])


class AmbiguousReference(BlobHubError):
    """A reference leads to more than one thing."""

    code, reason = "INVALID_ARGUMENT", "AMBIGUOUS_REFERENCE"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}", violations=[Violation(field, message)])


class InvalidPageToken(BlobHubError):
    """The page token is not one of this list's."""

    code, reason = "INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"

    def __init__(self) -> None:
        message = "not a token of this list"
        super().__init__(f"page_token: {message}", violations=[Violation("page_token", message)])


class InvalidValue(BlobHubError):
    """A value is not acceptable for a reason that no constraint in the protos can express."""

    code, reason = "INVALID_ARGUMENT", "INVALID_VALUE"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}", violations=[Violation(field, message)])


class UnknownBlobType(BlobHubError):
    """No blob type of that name is installed."""

    code, reason = "INVALID_ARGUMENT", "UNKNOWN_BLOB_TYPE"

    def __init__(self, name: str, installed: Sequence[str]) -> None:
        """`name` is empty for what has not the form of a type's name; `installed` are the types that there are."""
        super().__init__(
            f"no blob type {name or 'of that name'} is installed; there is {', '.join(installed) or 'none'}",
            metadata={"type": name} if name else None,
        )


class BlobTypeNotInstalled(BlobHubError):
    """The blob's type has tables, whose rows it alone can tell and delete, and is not installed."""

    code, reason = "FAILED_PRECONDITION", "BLOB_TYPE_NOT_INSTALLED"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"only the blob type {name} knows what it keeps for this, and it is not installed; install it and try again",
            metadata={"type": name},
        )


class Unauthenticated(BlobHubError):
    """The key that came with the call does not work; the status does not say why.

    `malformed`, and `claimed`, the caller whom the key belongs to, are for the audit log; the status leaves them out.
    """

    code, reason = "UNAUTHENTICATED", "UNAUTHENTICATED"
    text = "the key that came with this call does not work; send a valid one: authorization: Bearer <key>"

    def __init__(self, *, malformed: bool = False, claimed: object = None) -> None:
        super().__init__(self.text)
        self.malformed = malformed
        self.claimed = claimed


class KeyMissing(Unauthenticated):
    """No key came with the call, and without one it is refused."""

    text = "no key came with this call; send one: authorization: Bearer <key>"


class PermissionDenied(BlobHubError):
    """The caller may not do this, or the resource does not exist; the status does not say which."""

    code, reason = "PERMISSION_DENIED", "PERMISSION_DENIED"

    def __init__(self, message: str = "you may not see this, or there is no such thing", *, role: str = "") -> None:
        """`role` is the one that is needed; only for callers who may see the resource."""
        super().__init__(message, metadata={"role": role} if role else None)


class NotFound(BlobHubError):
    """The resource does not exist, or the caller may not see it, in a place that they may read."""

    code, reason = "NOT_FOUND", "NOT_FOUND"

    def __init__(self, kind: str, name: str, instead: str = "") -> None:
        """`instead` says what there is instead."""
        super().__init__(f"no such {kind}: {name}" + (f"; {instead}" if instead else ""), resource=(kind, name))
        self.kind, self.name = kind, name


class Renamed(BlobHubError):
    """The reference uses a former alias; `current` is the reference now."""

    code, reason = "NOT_FOUND", "RENAMED"

    def __init__(self, kind: str, name: str, current: str) -> None:
        super().__init__(f"this {kind} was renamed to {current}", metadata={"alias": current}, resource=(kind, name))


class AlreadyExists(BlobHubError):
    """The alias is taken."""

    code, reason = "ALREADY_EXISTS", "ALREADY_EXISTS"

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"there is already such a {kind}", resource=(kind, name))


class RequestIdReused(BlobHubError):
    """The request id was used before with another body."""

    code, reason = "ALREADY_EXISTS", "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        super().__init__("the request id was used with another request", metadata={"request_id": request_id})


class StaleEtag(BlobHubError):
    """The record has changed since the etag was read."""

    code, reason = "ABORTED", "STALE_ETAG"

    def __init__(self, current: str) -> None:
        super().__init__("the etag is not the current one", metadata={"etag": current})


class WrongPhase(BlobHubError):
    """The revision is not in a phase in which this is allowed."""

    code, reason = "FAILED_PRECONDITION", "WRONG_PHASE"

    def __init__(self, phase: str, needs: str) -> None:
        super().__init__(f"the revision is a {phase}; this needs a {needs}", metadata={"phase": phase, "needs": needs})


class InvalidContent(BlobHubError):
    """The revision's content is not valid for its blob type."""

    code, reason = "FAILED_PRECONDITION", "INVALID_CONTENT"

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(f"the content has {len(violations)} violations", violations=violations)


class WrongBlobType(BlobHubError):
    """The operation is for another type of blob."""

    code, reason = "FAILED_PRECONDITION", "WRONG_BLOB_TYPE"

    def __init__(self, type_: str, needs: str) -> None:
        super().__init__(f"the blob is a {type_}; this needs a {needs}", metadata={"type": type_, "needs": needs})


class RevisionInUse(BlobHubError):
    """Something depends on the revision."""

    code, reason = "FAILED_PRECONDITION", "REVISION_IN_USE"

    def __init__(self, dependents: str) -> None:
        super().__init__(f"the revision is in use: {dependents}", metadata={"dependents": dependents})


class NotEmpty(BlobHubError):
    """What is to be deleted is not empty, or is in use."""

    code, reason = "FAILED_PRECONDITION", "NOT_EMPTY"

    def __init__(self, kind: str, holds: str) -> None:
        super().__init__(f"the {kind} holds {holds}; set cascade to delete them too", metadata={"holds": holds})


class LastAdmin(BlobHubError):
    """Nobody would be left to administer this."""

    code, reason = "FAILED_PRECONDITION", "LAST_ADMIN"

    def __init__(self, what: str) -> None:
        super().__init__(f"the {what} would be left without an admin")


class KeyTooStrong(BlobHubError):
    """The new key would outlive the caller's own, which expires at `max_expire_time`."""

    code, reason = "PERMISSION_DENIED", "KEY_TOO_STRONG"

    def __init__(self, max_expire_time: datetime) -> None:
        super().__init__(
            "a key cannot outlive the one it is made with", metadata={"expire_time": max_expire_time.isoformat()}
        )


class KeyEnded(BlobHubError):
    """The key no longer works."""

    code, reason = "FAILED_PRECONDITION", "KEY_ENDED"

    def __init__(self) -> None:
        super().__init__("the key is revoked or expired")


class CredentialUnreadable(BlobHubError):
    """The stored credential cannot be decrypted: it has changed since it was stored."""

    code, reason = "DATA_LOSS", "CREDENTIAL_UNREADABLE"

    def __init__(self, credential_id: str) -> None:
        super().__init__("the stored credential cannot be read", metadata={"credential_id": credential_id})


class ContentLost(BlobHubError):
    """Stored bytes of some content are missing or corrupt."""

    code, reason = "DATA_LOSS", "CONTENT_LOST"

    def __init__(self, digest: str) -> None:
        super().__init__(
            "stored content was lost or changed; storing the same bytes again repairs it", metadata={"digest": digest}
        )


class MasterKeyMissing(BlobHubError):
    """The master key was changed to one that this server was not started with."""

    code, reason = "FAILED_PRECONDITION", "MASTER_KEY_MISSING"

    def __init__(self, master_key_id: str) -> None:
        super().__init__(
            "this server was started without the master key of today; its operator has to start it anew",
            metadata={"master_key_id": master_key_id},
        )


class IssuerUnavailable(BlobHubError):
    """The issuer's keys cannot be read, so its tokens cannot be verified."""

    code, reason = "UNAVAILABLE", "ISSUER_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("the token cannot be checked now; try again", retry_after_seconds=5.0)


class StorageUnavailable(BlobHubError):
    """The database or the object store cannot be used now. Its `__cause__` is for the log; the status does not tell it.

    A commit that ends with it may have been made.
    """

    code, reason = "UNAVAILABLE", "STORAGE_UNAVAILABLE"
    text, seconds = "the server cannot use its storage now; try again", 1.0

    def __init__(self) -> None:
        super().__init__(self.text, retry_after_seconds=self.seconds)


class StorageFull(StorageUnavailable):
    """The database or the object store has no room left, so nothing is written until somebody makes room."""

    code, reason = "RESOURCE_EXHAUSTED", "STORAGE_FULL"
    text, seconds = "the server has no room left to store anything; its operator has to make room; try again then", 5.0


class Overloaded(BlobHubError):
    """More is under way, waits for its turn, or was answered and not read, than the server or this caller may have."""

    code, reason = "RESOURCE_EXHAUSTED", "OVERLOADED"

    def __init__(self) -> None:
        super().__init__("the server has too many requests now; try again", retry_after_seconds=1.0)


class SequenceOutOfRange(BlobHubError):
    """A watch asks for a part of the log that is not there."""

    code, reason = "OUT_OF_RANGE", "SEQUENCE_OUT_OF_RANGE"

    def __init__(self, first: int, last: int) -> None:
        super().__init__(
            f"the log can be resumed after {first - 1} to {last}",
            metadata={"first_sequence": str(first), "last_sequence": str(last)},
        )


class LimitExceeded(BlobHubError):
    """A limit is reached; `resource_id` is what is full."""

    code, reason = "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED"

    def __init__(self, limit: str, value: int, resource_id: str) -> None:
        metadata = {"limit": limit, "value": str(value), "resource": resource_id}
        super().__init__(f"the limit {limit} is {value}", metadata=metadata)


class Unimplemented(BlobHubError):
    """No such method."""

    code, reason = "UNIMPLEMENTED", "UNIMPLEMENTED"

    def __init__(self) -> None:
        super().__init__("no such method")


def is_panic(error: BaseException) -> bool:
    """Whether an extension in Rust has panicked. PyO3 raises that as no Exception, and gives its class no public name."""
    return type(error).__name__ == "PanicException"
