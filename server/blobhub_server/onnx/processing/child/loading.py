"""What onnx and onnxruntime say of a model, in words for whoever has sent it."""

from __future__ import annotations

import re
from typing import Any

from onnx import ModelProto, NodeProto, checker

from blobhub_server.onnx.processing.child.walk import name_node, walk
from blobhub_server.onnx.refusal import ModelRefused, RefusalReason, quoted
from blobhub_server.onnx.runtime import is_about_memory, load_runtime, open_session, plain_words

# The library is read from its files, which cannot be opened once a model is there.
load_runtime()

_UNKNOWN_OPERATOR = re.compile(r"Fatal error: (?P<domain>\S*):(?P<operator>\S+)\(-?\d+\) is not a registered function/op")
_UNSUPPORTED = re.compile(
    r"No Op registered|NOT_IMPLEMENTED|is under development|Unsupported model IR version|no schema registered"
)
_INVALID = re.compile(r"INVALID_GRAPH|invalid model|INVALID_PROTOBUF|INVALID_ARGUMENT")


def check(data: bytes) -> None:
    """Check a model against the specification. As messages it would be copied. Raises ModelRefused."""
    try:
        checker.check_model(data)
    except MemoryError:
        raise
    except Exception as error:  # What C++ raises has many types.
        raise _refusal(str(error), RefusalReason.INVALID) from error


def load(data: bytes, model: ModelProto) -> Any:
    """A session of a model, optimized as for inference, so what grows by that is found here. Raises ModelRefused."""
    try:
        return open_session(data, threads=1)
    except MemoryError:
        raise
    except Exception as error:  # The types of onnxruntime's errors have no common base.
        said = str(error)
        unknown = _UNKNOWN_OPERATOR.search(said)
        if unknown:
            raise _unknown_operator(model, unknown["domain"], unknown["operator"]) from error
        raise _refusal(said, RefusalReason.UNLOADABLE) from error


def _refusal(said: str, otherwise: RefusalReason) -> ModelRefused:
    words = plain_words(said)
    if is_about_memory(said):
        return ModelRefused(RefusalReason.LIMITS, f"loading the model takes more memory than is allowed: {words}")
    if _UNSUPPORTED.search(said):
        return ModelRefused(RefusalReason.UNSUPPORTED, words)
    return ModelRefused(RefusalReason.INVALID if _INVALID.search(said) else otherwise, words)


def _unknown_operator(model: ModelProto, domain: str, operator: str) -> ModelRefused:
    nodes = (found.message for found in walk(model, "") if isinstance(found.message, NodeProto))
    node = next((each for each in nodes if (each.domain, each.op_type) == (domain, operator)), None)
    where = f"; it is used by {name_node(node)}" if node else ""
    message = f"onnxruntime has no operator {quoted(operator)} of the domain {quoted(domain or 'ai.onnx')}{where}"
    return ModelRefused(RefusalReason.UNSUPPORTED, message)
