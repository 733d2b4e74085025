"""Models to ask, and asking them without a server around."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_models
import onnxruntime
import psutil
from blobhub.v1 import inference_pb2, inference_pb2_grpc
from blobhub_server.onnx.inference.engine import InferenceEngine, StoredModel
from blobhub_server.onnx.inference.limits import EngineLimits, ProcessLimits
from blobhub_server.onnx.inference.process import CHILD
from blobhub_server.onnx.inference.signature import Signature
from blobhub_server.onnx.inference.tensor import BYTES, Tensor, item_count, pack_items, unpack_items
from blobhub_server.onnx.processing.child.signature import find_inputs, find_outputs
from onnx import ModelProto, NodeProto, TensorProto, helper
from served import Api

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
PARTY = ("organization", "caller")
LIMITS = EngineLimits(process=ProcessLimits(max_memory_bytes=2 << 30))
DATATYPES = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[tuple[str, int, Sequence[int | str]]],
    outputs: Sequence[tuple[str, int, Sequence[int | str]]],
    *,
    initializer: Sequence[TensorProto] = (),
    metadata: dict[str, str] | None = None,
) -> ModelProto:
    """A model; inputs and outputs have a name, a type and a shape."""
    infos = [[helper.make_tensor_value_info(*each) for each in some] for some in (inputs, outputs)]
    made = helper.make_model(
        helper.make_graph(nodes, "graph", *infos, initializer=initializer),
        opset_imports=onnx_models.OPSETS,
        ir_version=10,
    )
    if metadata:
        helper.set_model_props(made, metadata)
    return made


def doubling(rows: str = "batch", metadata: dict[str, str] | None = None) -> ModelProto:
    """Twice of four numbers, for each row."""
    node = helper.make_node("Add", ["x", "x"], ["y"])
    return model([node], [("x", FLOAT, [rows, 4])], [("y", FLOAT, [rows, 4])], metadata=metadata)


def summing(rows: str) -> ModelProto:
    """The sums over all rows, in each row: it mixes them."""
    nodes = [helper.make_node("CumSum", ["x", "zero"], ["s"]), helper.make_node("Identity", ["s"], ["y"])]
    zero = helper.make_tensor("zero", INT64, [], [0])
    return model(nodes, [("x", FLOAT, [rows, 4])], [("y", FLOAT, [rows, 4])], initializer=[zero])


def picking() -> ModelProto:
    """One of three numbers, by an index, which has to be one."""
    numbers = helper.make_tensor("numbers", FLOAT, [3], [10, 20, 30])
    node = helper.make_node("Gather", ["numbers", "i"], ["y"], name="pick")
    return model([node], [("i", INT64, ["batch"])], [("y", FLOAT, ["batch"])], initializer=[numbers])


def filling() -> ModelProto:
    """As many zeros as the input says: it takes as much memory as one likes."""
    nodes = [helper.make_node("ConstantOfShape", ["n"], ["zeros"]), helper.make_node("ReduceSum", ["zeros"], ["y"])]
    return model(nodes, [("n", INT64, [1])], [("y", FLOAT, [1])])


def spreading() -> ModelProto:
    """As many zeros as the input says, as its answer."""
    return model([helper.make_node("ConstantOfShape", ["n"], ["y"])], [("n", INT64, [1])], [("y", FLOAT, ["m"])])


def looping() -> ModelProto:
    """It goes round as often as the input says, and gives that number."""
    inner = [("i", INT64, []), ("c", TensorProto.BOOL, []), ("v", INT64, [1])]
    body = helper.make_graph(
        [helper.make_node("Add", ["v", "one"], ["w"]), helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [helper.make_tensor_value_info(*each) for each in inner],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, []), helper.make_tensor_value_info("w", INT64, [1])],
    )
    zero, one = (helper.make_tensor(name, INT64, [1], [value]) for name, value in (("zero", 0), ("one", 1)))
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    loop = helper.make_node("Loop", ["n", "true", "zero"], ["y"], body=body)
    return model([loop], [("n", INT64, [])], [("y", INT64, [1])], initializer=[zero, one, true])


ONNX_TYPES = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BYTES": "STRING"}


def identity() -> bytes:
    """A model that answers two items of each datatype as they are; an input is named as its datatype."""
    kinds = {name: TensorProto.DataType.Value(ONNX_TYPES.get(name, name)) for name in (*DATATYPES, BYTES)}
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in kinds]
    inputs = [(name, kind, [2]) for name, kind in kinds.items()]
    return model(nodes, inputs, [(f"{name}_out", kind, [2]) for name, kind in kinds.items()]).SerializeToString()


def brains(texts: bool = False) -> bytes:
    """A model of BF16: what comes in as `x`, and FP32 and BF16 of it. With `texts` it takes some, too."""
    kinds = {"FP32": FLOAT, "BF16": TensorProto.BFLOAT16}
    nodes = [helper.make_node("Cast", ["x"], [name], to=kind) for name, kind in kinds.items()]
    inputs, outputs = [("x", kinds["BF16"], ["batch"])], [(name, kind, ["batch"]) for name, kind in kinds.items()]
    if texts:
        nodes.append(helper.make_node("Identity", ["t"], ["u"]))
        inputs.append(("t", TensorProto.STRING, ["batch"]))
        outputs.append(("u", TensorProto.STRING, ["batch"]))
    return bytes(model(nodes, inputs, outputs).SerializeToString())


def stored(data: ModelProto | bytes, organization_id: str = "organization") -> StoredModel:
    """A model as the engine gets it."""
    text = data if isinstance(data, bytes) else data.SerializeToString()
    graph = ModelProto.FromString(text).graph
    session = onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"])

    async def read() -> AsyncIterator[bytes]:
        for start in range(0, len(text), 1 << 20):
            yield text[start : start + (1 << 20)]

    return StoredModel(
        organization_id=organization_id,
        digest=hashlib.sha256(text).hexdigest(),
        size=len(text),
        signature=Signature(inputs=find_inputs(graph, session), outputs=find_outputs(graph, session)),
        read=read,
    )


@asynccontextmanager
async def engine(limits: EngineLimits = LIMITS) -> AsyncIterator[InferenceEngine]:
    """An engine that ends with the block, and leaves no process."""
    made = InferenceEngine(limits, lambda: time.time_ns() // 1_000_000)
    async with made.running():
        yield made


def processes() -> list[psutil.Process]:
    """The processes of models that this process has started."""
    return [each for each in psutil.Process().children() if CHILD in " ".join(each.cmdline())]


def limited(process: dict[str, Any] | None = None, **rest: Any) -> EngineLimits:
    """The limits, with some of the process or the engine changed."""
    return replace(LIMITS, process=replace(LIMITS.process, **process or {}), **rest)


def raw(name: str, datatype: str, shape: Sequence[int], data: bytes) -> Tensor:
    """A tensor of bytes."""
    return Tensor(name=name, datatype=datatype, shape=tuple(shape), data=data)


def tensor(name: str, array: Any) -> Tensor:
    """An array as a tensor."""
    array = np.asarray(array)
    if array.dtype.kind in "OU":
        return raw(name, BYTES, array.shape, pack_items([str(each).encode() for each in array.ravel()]))
    datatype = next(name for name, kind in DATATYPES.items() if array.dtype == kind)
    return raw(name, datatype, array.shape, array.tobytes())


def array(of: Tensor) -> Any:
    """A tensor as an array."""
    if of.datatype == BYTES:
        items = [each.decode() for each in unpack_items(of.data, item_count(of.shape))]
        return np.array(items, dtype=object).reshape(of.shape)
    return np.frombuffer(of.data, DATATYPES[of.datatype]).reshape(of.shape)


async def ask(
    engine: InferenceEngine, model: StoredModel, party: tuple[str, str] = PARTY, outputs: Sequence[str] = (), **inputs: Any
) -> dict[str, Any]:
    """The outputs of a model, by name, as arrays."""
    tensors = [tensor(name, value) for name, value in inputs.items()]
    answer = await engine.infer(model, tensors, outputs, party)
    return {each.name: array(each) for each in answer.outputs}


def in_process(model: ModelProto | bytes, **inputs: Any) -> dict[str, Any]:
    """What onnxruntime answers in this process."""
    text = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


async def predictions(api: Api, revision: str, **inputs: Any) -> dict[str, Any]:
    """What a revision's model answers over a channel, by output."""
    tensors = [tensor(name, value) for name, value in inputs.items()]
    sent = [
        inference_pb2.InferenceTensor(name=each.name, datatype=each.datatype, shape=each.shape, raw=each.data)
        for each in tensors
    ]
    request = inference_pb2.InferRequest(revision=revision, inputs=sent, raw_outputs=True)
    answer = await inference_pb2_grpc.InferenceServiceStub(api.channel).Infer(request)
    return {each.name: array(raw(each.name, each.datatype, each.shape, each.raw)) for each in answer.outputs}
