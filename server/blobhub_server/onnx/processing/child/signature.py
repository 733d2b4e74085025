"""What a model takes and gives, in the words of the Open Inference Protocol, and its size in parameters."""

from __future__ import annotations

import math
from typing import Any

from onnx import GraphProto, ModelProto, TypeProto

from blobhub_server.onnx.processing.child.walk import walk
from blobhub_server.onnx.processing.report import TensorSpec

# https://github.com/kserve/open-inference-protocol: the datatypes of tensors, beside onnxruntime's names.
_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}


def find_inputs(graph: GraphProto, session: Any) -> tuple[TensorSpec, ...]:
    """What a request has to bring; inputs that an initializer gives a value to may be left out, and are not told."""
    declared = {each.name: each.type for each in graph.input}
    return tuple(_spec(each, declared) for each in session.get_inputs())


def find_outputs(graph: GraphProto, session: Any) -> tuple[TensorSpec, ...]:
    """What an answer brings, with the shapes that onnxruntime has inferred where the model has none."""
    declared = {each.name: each.type for each in graph.output}
    return tuple(_spec(each, declared) for each in session.get_outputs())


def find_opsets(model: ModelProto) -> dict[str, int]:
    """Version by domain."""
    return {each.domain or "ai.onnx": each.version for each in model.opset_import}


def count_parameters(model: ModelProto) -> int:
    """How many numbers the initializers of all graphs hold; of sparse ones those that are stored."""
    graphs = (found.message for found in walk(model, "") if isinstance(found.message, GraphProto))
    return sum(
        sum(math.prod(each.dims) for each in graph.initializer)
        + sum(math.prod(each.values.dims) for each in graph.sparse_initializer)
        for graph in graphs
    )


def _spec(argument: Any, declared: dict[str, TypeProto]) -> TensorSpec:
    """One input or output, of onnxruntime's `NodeArg`, whose shape is empty for a scalar and for an unknown rank alike."""
    is_tensor = argument.type.startswith("tensor(")
    type_ = declared.get(argument.name, TypeProto())
    has_rank = bool(argument.shape) or type_.tensor_type.HasField("shape")
    shape = tuple(each if isinstance(each, int) and each >= 0 else -1 for each in argument.shape)
    return TensorSpec(
        name=argument.name,
        datatype=_DATATYPES.get(argument.type, ""),
        type=argument.type,
        shape=shape if is_tensor and has_rank else None,
    )
