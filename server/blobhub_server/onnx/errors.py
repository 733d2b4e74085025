"""The errors of models, each with its gRPC status code and its reason.

The reasons are the values of `OnnxErrorReason` in `protos/blobhub/v1/onnx_error.proto`. Those that begin with `MODEL_` are
those of `RefusalReason`: INVALID_ARGUMENT where no server would take the bytes, FAILED_PRECONDITION where one with other
versions or settings may.
"""

from __future__ import annotations

from collections.abc import Sequence

from blobhub_server.errors import BlobHubError, Violation
from blobhub_server.onnx.refusal import Refused

TYPE = "blobhub.model.onnx"
"""The name of the blob type, which is the domain of its reasons."""


class OnnxError(BlobHubError):
    """The base class of the errors of models."""

    domain = TYPE


class ExtraNotInstalled(OnnxError):
    """The server was installed without the packages that models need."""

    code, reason = "FAILED_PRECONDITION", "EXTRA_MISSING"

    def __init__(self) -> None:
        super().__init__("this server was installed without the packages that models need; its operator has to install them")


class RefusedModel(OnnxError):
    """The base class of why a model is refused; the message says it in words."""

    code = "INVALID_ARGUMENT"


class RefusedArchive(RefusedModel):
    """The archive is not a gzipped tar with exactly one member, `model.onnx`."""

    reason = "MODEL_ARCHIVE"


class UnreadableModel(RefusedModel):
    """The bytes are not an ONNX model."""

    reason = "MODEL_UNREADABLE"


class ModelTooLarge(RefusedModel):
    """The model has more of something than this server takes."""

    code, reason = "FAILED_PRECONDITION", "MODEL_TOO_LARGE"


class ExternalData(RefusedModel):
    """A tensor keeps its data in another file."""

    reason = "MODEL_EXTERNAL_DATA"


class InvalidModel(RefusedModel):
    """The model breaks a rule of the ONNX specification."""

    reason = "MODEL_INVALID"


class UnsupportedModel(RefusedModel):
    """The model has an operator, domain or opset that onnxruntime does not have."""

    code, reason = "FAILED_PRECONDITION", "MODEL_UNSUPPORTED"


class UnloadableModel(RefusedModel):
    """The model is valid, but onnxruntime cannot make a session of it."""

    code, reason = "FAILED_PRECONDITION", "MODEL_UNLOADABLE"


class ProcessingLimitReached(RefusedModel):
    """Processing the model took more time or memory than it may."""

    code, reason = "FAILED_PRECONDITION", "MODEL_LIMITS"


_REFUSALS: dict[str, type[RefusedModel]] = {
    kind.reason: kind
    for kind in (
        RefusedArchive,
        UnreadableModel,
        ModelTooLarge,
        ExternalData,
        InvalidModel,
        UnsupportedModel,
        UnloadableModel,
        ProcessingLimitReached,
    )
}


def refusal_error(refused: Refused) -> RefusedModel:
    """The error that says why a model is refused."""
    return _REFUSALS[refused.reason](refused.message)


class UploadNotOpen(OnnxError):
    """The upload takes no parts any more, and cannot be completed or cancelled."""

    code, reason = "FAILED_PRECONDITION", "UPLOAD_NOT_OPEN"

    def __init__(self, state: str, operation_id: str) -> None:
        """`operation_id` is the operation that completes the upload; empty without one."""
        told = f"its operation is {operation_id}" if operation_id else "begin another one"
        super().__init__(f"the upload is {state}; {told}", metadata={"state": state, "operation": operation_id})


class PartsMismatch(OnnxError):
    """Parts of an upload have not come, or are not those that were named."""

    code, reason = "FAILED_PRECONDITION", "PARTS_MISMATCH"

    def __init__(self, count: int, violations: Sequence[Violation] = ()) -> None:
        """`count` is how many are wrong; `violations` say it of the first ones."""
        said = "; ".join(each.message for each in violations[:5]) or "a part was sent again meanwhile"
        super().__init__(f"{count} parts are not there as named: {said}", violations=violations)


class ChecksumMismatch(OnnxError):
    """The file that has come does not have the checksum that was announced."""

    code, reason = "INVALID_ARGUMENT", "CHECKSUM_MISMATCH"

    def __init__(self, name: str, expected: str, actual: str) -> None:
        """`name` is `sha256` or `crc32c`; the values are lower-case hex."""
        super().__init__(
            f"the {name} of the file is {actual}, and {expected} was announced; send it again",
            metadata={"checksum": name, "expected": expected, "actual": actual},
        )
