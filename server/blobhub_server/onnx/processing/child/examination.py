"""One model, from its bytes to a report: parsed, checked, loaded and described, in the order of what is cheap to refuse."""

from __future__ import annotations

import hashlib

from google.protobuf.message import DecodeError
from onnx import ModelProto

from blobhub_server.drawing import to_dot, to_mermaid
from blobhub_server.onnx.processing.child import drawing, functions, loading
from blobhub_server.onnx.processing.child.document import describe_model
from blobhub_server.onnx.processing.child.signature import count_parameters, find_inputs, find_opsets, find_outputs
from blobhub_server.onnx.processing.child.structure import check_structure
from blobhub_server.onnx.processing.limits import ProcessingLimits
from blobhub_server.onnx.processing.report import Report
from blobhub_server.onnx.refusal import ModelRefused, RefusalReason


def examine(data: bytes, limits: ProcessingLimits) -> Report:
    """All that is said of a model. Raises ModelRefused."""
    try:
        return _examine(data, limits)
    except MemoryError as error:
        message = f"checking the model took more than {limits.max_memory_bytes >> 20} MiB of memory"
        raise ModelRefused(RefusalReason.LIMITS, message) from error


def _examine(data: bytes, limits: ProcessingLimits) -> Report:
    model = _parse(data)
    node_count = check_structure(model, limits)
    functions.check_expansion(model, limits)
    loading.check(data)
    session = loading.load(data, model)
    drawn = drawing.draw(model.graph, limits.max_drawn_nodes)
    return Report(
        sha256=hashlib.sha256(data).hexdigest(),
        ir_version=model.ir_version,
        opsets=find_opsets(model),
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        node_count=node_count,
        parameter_count=count_parameters(model),
        inputs=find_inputs(model.graph, session),
        outputs=find_outputs(model.graph, session),
        model_json=describe_model(model, limits.max_document_bytes),
        dot=to_dot(drawn, "model"),
        mermaid=to_mermaid(drawn),
    )


def _parse(data: bytes) -> ModelProto:
    """The model as messages. Nothing is opened for it, other than `onnx.load` does."""
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        message = "the bytes are not an ONNX model: they are truncated, nested too deep, or something else"
        raise ModelRefused(RefusalReason.UNREADABLE, message) from error
    if not model.HasField("graph") or not model.ir_version:
        raise ModelRefused(RefusalReason.UNREADABLE, "the bytes are not an ONNX model: there is no graph, or no IR version")
    return model
