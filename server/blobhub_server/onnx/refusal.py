"""Why a model is refused, in words for whoever has sent it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_MESSAGE_CHARACTERS = 600


class RefusalReason(StrEnum):
    """What is wrong with a model, or with how it was sent."""

    ARCHIVE = "MODEL_ARCHIVE"
    """The archive is not a gzipped tar with exactly one member, `model.onnx`."""
    UNREADABLE = "MODEL_UNREADABLE"
    """The bytes are not an ONNX model: truncated, garbage, or nested deeper than protobuf reads."""
    TOO_LARGE = "MODEL_TOO_LARGE"
    """More bytes, nodes, nested graphs or elements than the limits allow."""
    EXTERNAL_DATA = "MODEL_EXTERNAL_DATA"
    """A tensor keeps its data in another file."""
    INVALID = "MODEL_INVALID"
    """The model breaks a rule of the ONNX specification."""
    UNSUPPORTED = "MODEL_UNSUPPORTED"
    """An operator, domain or opset that onnxruntime does not have."""
    UNLOADABLE = "MODEL_UNLOADABLE"
    """The model is valid, but onnxruntime cannot make a session of it, or ends while it tries."""
    LIMITS = "MODEL_LIMITS"
    """Processing took more time or memory than it may."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A model that is refused; the message names the node, tensor or operator, where one is at fault."""

    reason: RefusalReason
    message: str


class ModelRefused(Exception):
    """A model is refused. Raised by those who read one; callers of the processing get a `Refused`."""

    def __init__(self, reason: RefusalReason, message: str) -> None:
        super().__init__(message)
        self.refused = Refused(reason, message[:MAX_MESSAGE_CHARACTERS])


def quoted(name: str) -> str:
    """A name out of a model, for a message: short, on one line, without control characters."""
    return repr(name if len(name) <= 80 else f"{name[:77]}...")
