"""What a model may not be, whatever the specification says of it: large, deep, or in more than one file."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnx import GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, TypeProto

from blobhub_server.onnx.processing.child.walk import Found, check_text, walk
from blobhub_server.onnx.processing.limits import ProcessingLimits
from blobhub_server.onnx.refusal import ModelRefused, RefusalReason, quoted

# Of two bits, the smallest type, four elements are in a byte.
_MAX_ELEMENTS_PER_BYTE = 4


def check_structure(model: ModelProto, limits: ProcessingLimits) -> int:
    """How many nodes the model has, in all its graphs and functions. Raises ModelRefused."""
    nodes = 0
    for found in walk(model, "the model"):
        match found.message:
            case NodeProto():
                nodes += 1
                if nodes > limits.max_nodes:
                    message = f"the model has more than {limits.max_nodes} nodes"
                    raise ModelRefused(RefusalReason.TOO_LARGE, message)
            case GraphProto():
                if found.depth >= limits.max_graph_depth:
                    message = f"{found.owner} has graphs nested more than {limits.max_graph_depth} deep"
                    raise ModelRefused(RefusalReason.TOO_LARGE, message)
            case TensorProto():
                _check_tensor(found.message, found, limits)
            case SparseTensorProto():
                _count_elements(found.message.dims, f"a sparse tensor of {found.owner}", limits)
            case TypeProto.Tensor():
                dims = [each.dim_value for each in found.message.shape.dim if each.dim_value > 0]
                _count_elements(dims, found.owner, limits)
    return nodes


def _check_tensor(tensor: TensorProto, found: Found, limits: ProcessingLimits) -> None:
    check_text(tensor.name)
    name = f"tensor {quoted(tensor.name)} of {found.owner}" if tensor.name else f"the tensor in {found.owner}"
    if tensor.data_location != TensorProto.DEFAULT or tensor.external_data:
        location = next((each.value for each in tensor.external_data if each.key == "location"), "")
        told = f" {quoted(location)}" if location else ""
        message = f"{name} keeps its data in another file{told}; send the model as one file, with all data in it"
        raise ModelRefused(RefusalReason.EXTERNAL_DATA, message)
    elements, stored = _count_elements(tensor.dims, name, limits), tensor.ByteSize()
    if elements > _MAX_ELEMENTS_PER_BYTE * stored:
        message = f"{name} says that it has {elements} elements, and holds {stored} bytes"
        raise ModelRefused(RefusalReason.INVALID, message)


def _count_elements(dims: Sequence[int], name: str, limits: ProcessingLimits) -> int:
    if any(each < 0 for each in dims):
        raise ModelRefused(RefusalReason.INVALID, f"{name} has a negative dimension")
    elements = math.prod(dims)
    if elements > limits.max_tensor_elements:
        shape = " × ".join(str(each) for each in dims[:8])
        message = f"{name} has {shape} elements; at most {limits.max_tensor_elements} are allowed"
        raise ModelRefused(RefusalReason.TOO_LARGE, message)
    return elements
