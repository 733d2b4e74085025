"""From errors to statuses: what each carries, and that it always fits."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc
import pytest
import structlog
from blobhub_server import errors
from blobhub_server.db.trouble import StorageBusy
from blobhub_server.errors import BlobHubError, Violation
from blobhub_server.onnx import errors as onnx_errors
from blobhub_server.onnx.inference import errors as inference_errors
from blobhub_server.platform.rules.operation import OperationEnded, OperationPoisoned, OperationState
from blobhub_server.rpc import transport_error
from blobhub_server.rpc.errors import status_of, to_blobhub_error
from blobhub_server.scheduler import errors as scheduler_errors
from blobhub_server.workflow import errors as workflow_errors
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

WRONG = [Violation("components[0].id", "is missing"), Violation("", "is empty")]
EVERY = [
    errors.Internal("an-id"),
    errors.InvalidRequest(WRONG),
    errors.UndecodableRequest(),
    errors.InvalidReference("blob", "acme/pipeline"),
    errors.AmbiguousReference("revision", "the blob has several drafts"),
    errors.InvalidPageToken(),
    errors.InvalidValue("expire_time", "is past"),
    errors.UnknownBlobType("acme.type", ["other.type"]),
    errors.BlobTypeNotInstalled("acme.type"),
    workflow_errors.InvalidDefinitionContent(WRONG),
    errors.Unauthenticated(),
    errors.PermissionDenied(),
    errors.NotFound("definition", "workflow"),
    errors.AlreadyExists("blob", "acme/pipeline"),
    errors.RequestIdReused("an-id"),
    errors.StaleEtag("7"),
    errors.WrongPhase("commit", "draft"),
    errors.InvalidContent(WRONG),
    errors.WrongBlobType("acme.type", "other.type"),
    workflow_errors.DefinitionNotRunnable(WRONG),
    workflow_errors.SessionNotOpen("closed"),
    workflow_errors.ExecutionEnded("completed"),
    workflow_errors.CauseReused("an-id"),
    workflow_errors.LeaseLost("completed"),
    workflow_errors.WorkerOverdue(),
    scheduler_errors.InvalidSchedule(WRONG),
    scheduler_errors.ScheduleCompleted(),
    scheduler_errors.ScheduleNotArmed(),
    scheduler_errors.BackfillRefused(datetime(2027, 3, 28, 2, 30, tzinfo=UTC), "NOT_FOUND", "no such definition: digest"),
    scheduler_errors.BackfillForgotten(datetime(2027, 3, 28, 2, 30, tzinfo=UTC), datetime(2027, 3, 29, 2, 30, tzinfo=UTC)),
    onnx_errors.ExtraNotInstalled(),
    onnx_errors.RefusedArchive("there are bytes after its end"),
    onnx_errors.UnreadableModel("it is truncated"),
    onnx_errors.ModelTooLarge("it has too many nodes"),
    onnx_errors.ExternalData("the tensor 'w' is in another file"),
    onnx_errors.InvalidModel("the graph has a cycle"),
    onnx_errors.UnsupportedModel("there is no operator 'Foo'"),
    onnx_errors.UnloadableModel("the node 'n' has no input"),
    onnx_errors.ProcessingLimitReached("it took more than 300 s"),
    onnx_errors.UploadNotOpen("completing", "an-id"),
    onnx_errors.PartsMismatch(1, WRONG),
    onnx_errors.ChecksumMismatch("crc32c", "00000000", "ffffffff"),
    inference_errors.InvalidTensor("x", "has another shape", expected="FP32[-1,4]", got="FP32[2,5]"),
    inference_errors.TensorNotServable("y", "seq(map(int64,tensor(float)))", is_input=False),
    inference_errors.InferenceRefused("the index 9 is out of bounds", operator="Gather", node="n"),
    inference_errors.InferenceExhausted("time", "it took more than 30 s"),
    inference_errors.InferenceCrashed("signal 11"),
    inference_errors.ModelNotLoaded("it has no operator 'Foo'"),
    inference_errors.ModelResting("it ended its process", 2.5),
    inference_errors.InferenceQueueFull(),
    inference_errors.InferenceMemoryFull(),
    OperationEnded(OperationState.SUCCEEDED),
    OperationPoisoned(3),
    errors.RevisionInUse("2 open sessions"),
    errors.SequenceOutOfRange(1, 9),
    transport_error.ShuttingDown(9),
    transport_error.StreamUnread(9),
    errors.Overloaded(),
    StorageBusy(),
    transport_error.RequestUnfinished(30),
    errors.LimitExceeded("metadata.records", 256, "an-id"),
    errors.Renamed("blob", "acme/old", "acme/new"),
    errors.NotEmpty("organization", "2 blobs"),
    errors.LastAdmin("organization"),
    errors.KeyTooStrong(datetime(2026, 1, 1, tzinfo=UTC)),
    errors.KeyEnded(),
    errors.CredentialUnreadable("an-id"),
    errors.ContentLost("0" * 64),
    errors.IssuerUnavailable(),
    errors.StorageUnavailable(),
    errors.StorageFull(),
    errors.MasterKeyMissing("0123456789abcdef"),
    errors.Unimplemented(),
]
CLIENT_METADATA_BYTES = 8192
"""What gRPC clients accept unless told otherwise (https://github.com/grpc/proposal/blob/master/A6-client-retries.md)."""


def details_of(error: BlobHubError) -> dict[str, Message]:
    """The details of the status that an error becomes, by message name."""
    _, _, trailers = status_of(error)
    status = status_pb2.Status.FromString(trailers[0][1])
    found = {}
    for item in status.details:
        detail = getattr(error_details_pb2, item.TypeName().rpartition(".")[2])()
        assert item.Unpack(detail)
        found[detail.DESCRIPTOR.name] = detail
    return found


def on_the_wire(error: BlobHubError) -> int:
    """Bytes of metadata that a status takes: the message percent-encoded, the details in base64."""
    _, message, trailers = status_of(error)
    percent = sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in message.encode())
    return percent + sum(len(key) + len(value) * 4 // 3 + 4 for key, value in trailers) + 256


def raised(kind: type[BlobHubError] = BlobHubError) -> set[type[BlobHubError]]:
    """The classes of errors that have a reason of their own."""
    deeper = {found for child in kind.__subclasses__() for found in raised(child)}
    return deeper | ({kind} if "reason" in vars(kind) and kind is not BlobHubError else set())


def test_every_error_is_tried_here() -> None:
    ours = {kind for kind in raised() if kind.__module__.startswith("blobhub_server.")}
    assert {type(error) for error in EVERY} == ours


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_every_error_becomes_a_status_with_its_code_reason_and_metadata(error: BlobHubError) -> None:
    code, message, ((trailer, data),) = status_of(error)
    status = status_pb2.Status.FromString(data)
    assert trailer == "grpc-status-details-bin"
    assert code is grpc.StatusCode[error.code]
    assert (status.code, status.message, message) == (code.value[0], error.message, error.message)
    info = details_of(error)["ErrorInfo"]
    assert (info.domain, info.reason, dict(info.metadata)) == (error.domain, error.reason, error.metadata)


def test_violations_become_a_bad_request() -> None:
    found = details_of(errors.InvalidContent(WRONG))["BadRequest"].field_violations
    assert [Violation(item.field, item.description) for item in found] == WRONG


def test_a_resource_becomes_a_resource_info() -> None:
    info = details_of(errors.NotFound("definition", "workflow"))["ResourceInfo"]
    assert (info.resource_type, info.resource_name) == ("definition", "workflow")


def test_a_limit_becomes_a_quota_failure() -> None:
    (violation,) = details_of(errors.LimitExceeded("metadata.records", 256, "an-id"))["QuotaFailure"].violations
    assert violation.subject == "an-id"
    assert violation.description == "the limit metadata.records is 256"


@pytest.mark.parametrize(("seconds", "nanos"), [(1.0, 0), (0.25, 250_000_000), (2.5, 500_000_000)])
def test_a_time_to_wait_becomes_a_retry_info(seconds: float, nanos: int) -> None:
    delay = details_of(BlobHubError("busy", retry_after_seconds=seconds))["RetryInfo"].retry_delay
    assert (delay.seconds, delay.nanos) == (int(seconds), nanos)


def test_violations_that_do_not_fit_are_counted() -> None:
    error = errors.InvalidContent([Violation(f"components[{n}]", "is not connected to anything") for n in range(1000)])
    found = details_of(error)["BadRequest"].field_violations
    assert found[0].field == "components[0]"
    assert found[-1].description == f"and {1000 - (len(found) - 1)} more"


texts = st.one_of(st.text(max_size=40), st.sampled_from(["é" * 4000, "😀" * 2000, "%\n" * 3000, "a" * 100_000, "\ud800"]))


@given(
    texts,
    st.lists(st.builds(Violation, texts, texts), max_size=60),
    st.dictionaries(st.sampled_from(["type", "needs", "state"]), texts),
    st.tuples(texts, texts),
)
def test_whatever_an_error_says_fits_what_clients_accept(message, violations, metadata, resource) -> None:
    error = BlobHubError(
        message, violations=violations, metadata=metadata, resource=("blob", resource[1]), retry_after_seconds=1.0
    )
    assert on_the_wire(error) < CLIENT_METADATA_BYTES


def test_our_errors_are_told_as_they_are() -> None:
    error = errors.StaleEtag("7")
    assert to_blobhub_error(error, "/x/Y") is error


def test_any_other_error_is_logged_under_the_id_that_the_caller_gets() -> None:
    with structlog.testing.capture_logs() as logged:
        made = to_blobhub_error(RuntimeError("swordfish"), "/x/Y")
    assert isinstance(made, errors.Internal)
    assert [line["error_id"] for line in logged] == [made.metadata["error_id"]]
    assert "swordfish" not in made.message
