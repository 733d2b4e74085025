"""Functions that a model defines: onnxruntime puts their nodes in the place of each call, so few may become very many."""

from __future__ import annotations

from collections import Counter

from google.protobuf.message import Message
from onnx import ModelProto, NodeProto

from blobhub_server.onnx.processing.child.walk import walk
from blobhub_server.onnx.processing.limits import ProcessingLimits
from blobhub_server.onnx.refusal import ModelRefused, RefusalReason, quoted

_MAX_CALL_DEPTH = 64

_Key = tuple[str, str, str]


def check_expansion(model: ModelProto, limits: ProcessingLimits) -> None:
    """Refuse functions that call each other in a circle, and those that become too many nodes. Raises ModelRefused."""
    if not model.functions:
        return
    calls = {(each.domain, each.name, each.overload): _calls(each) for each in model.functions}
    sizes: dict[_Key, int] = {}
    for key in calls:
        _measure(key, calls, sizes, ())
    nodes = sum(count * sizes.get(key, 1) for key, count in _calls(model.graph).items())
    if nodes > limits.max_nodes:
        message = f"the model's functions become {nodes} nodes where they are called; at most {limits.max_nodes} are allowed"
        raise ModelRefused(RefusalReason.TOO_LARGE, message)


def _calls(message: Message) -> Counter[_Key]:
    nodes = (found.message for found in walk(message, "") if isinstance(found.message, NodeProto))
    return Counter((node.domain, node.op_type, node.overload) for node in nodes)


def _measure(key: _Key, calls: dict[_Key, Counter[_Key]], sizes: dict[_Key, int], callers: tuple[_Key, ...]) -> int:
    """How many nodes a function becomes; those of functions that were measured before are known."""
    if key in callers:
        raise ModelRefused(RefusalReason.INVALID, f"function {quoted(key[1])} calls itself")
    if len(callers) >= _MAX_CALL_DEPTH:
        message = f"function {quoted(key[1])} is called more than {_MAX_CALL_DEPTH} deep"
        raise ModelRefused(RefusalReason.TOO_LARGE, message)
    if key not in sizes:
        sizes[key] = sum(
            count * (_measure(called, calls, sizes, (*callers, key)) if called in calls else 1)
            for called, count in calls[key].items()
        )
    return sizes[key]
