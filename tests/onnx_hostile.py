"""A corpus of hostile models: each is refused with a reason and in words, and harms nobody."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

from blobhub_server.onnx.refusal import RefusalReason
from onnx import ModelProto, SparseTensorProto, TensorProto, helper
from onnx_models import (
    FLOAT,
    calling,
    external,
    in_initializer,
    magika,
    model,
    nested,
    nested_bytes,
    relu,
)

R = RefusalReason
Told = tuple[str, ModelProto | bytes, RefusalReason, str]
node = helper.make_node

CRASHING = (-(1 << 63), -1)
"""The least number of 64 bits, divided by -1, is more than the greatest: the processor traps, and the process is killed."""


@dataclass(frozen=True)
class Hostile:
    """Bytes that are refused, and what the message says."""

    name: str
    data: bytes
    reason: RefusalReason
    says: str


def hostile() -> list[Hostile]:
    """What is no good model, one of each kind; models with external data stand for themselves, in `PLACES`."""
    told = [*_bytes(), *_graphs(), *_versions(), *_tensors(), *_nesting(), *_running()]
    return [
        Hostile(name=name, data=data if isinstance(data, bytes) else data.SerializeToString(), reason=reason, says=says)
        for name, data, reason, says in told
    ]


def _bytes() -> Iterator[Told]:
    """What is no model at all, or not that of the ONNX specification."""
    good = relu().SerializeToString()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.onnx", bytes(10 << 20))
    yield "nothing", b"", R.UNREADABLE, "not an ONNX model"
    yield "garbage", bytes(range(256)) * 40, R.UNREADABLE, "not an ONNX model"
    yield "text", b"<html>no model</html>" * 100, R.UNREADABLE, "not an ONNX model"
    yield "truncated", magika().read_bytes()[:100_000], R.UNREADABLE, "truncated"
    yield "a zip bomb", zipped.getvalue(), R.UNREADABLE, "not an ONNX model"
    yield "a gzip bomb", gzip.compress(bytes(10 << 20)), R.UNREADABLE, "not an ONNX model"
    yield "without a graph", ModelProto(producer_name="xxORTM" + "x" * 200, ir_version=10), R.UNREADABLE, "no graph"
    yield "names that are no text", good.replace(b"cut", b"c\xff\xfe"), R.UNREADABLE, "not UTF-8"


def _graphs() -> Iterator[Told]:
    """Graphs that break a rule, and operators that nobody has."""
    cycle = [node("Add", ["x", "b"], ["a"], name="first"), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])]
    twice = [node("Relu", ["x"], ["a"]), node("Neg", ["x"], ["a"]), node("Relu", ["a"], ["y"])]
    inputs = relu()
    inputs.graph.input.append(inputs.graph.input[0])
    one, other = (helper.make_tensor("w", FLOAT, [1], [number]) for number in (1, 2))
    tensors = model([node("Add", ["x", "w"], ["y"])], initializer=[one, other])
    foreign = model([node("Foo", ["x"], ["y"], name="n", domain="my")], domains=["my"])
    known = model([node("Foo", ["x"], ["y"], domain="com.microsoft")], domains=["com.microsoft"])
    long = model([node("Foo", ["x"], ["y"], name="n" * 1_000_000)])
    yield "a cycle", model(cycle), R.INVALID, "'b' of node: name: first"
    yield "an output that nobody gives", model([node("Relu", ["x"], ["z"])]), R.INVALID, "y"
    yield "two values of one name", model(twice), R.INVALID, "'a'"
    yield "two inputs of one name", inputs, R.INVALID, "'x'"
    yield "two tensors of one name", tensors, R.INVALID, "w initializer name is not unique"
    yield "an unknown operator", model([node("Foo", ["x"], ["y"], name="n")]), R.UNSUPPORTED, "Foo"
    yield "a name of a megabyte", long, R.UNSUPPORTED, "Foo"
    yield "an unknown domain", foreign, R.UNSUPPORTED, "'n'"
    yield "an unknown operator of a known domain", known, R.UNSUPPORTED, "'Foo' of the domain 'com.microsoft'"


def _versions() -> Iterator[Told]:
    """Versions that there are not."""
    for name, version, reason, says in (
        ("an opset to come", 999, R.UNSUPPORTED, "999"),
        ("opset 0", 0, R.UNSUPPORTED, "domain_version of 0"),
        ("a negative opset", -1, R.UNSUPPORTED, "domain_version of -1"),
        ("opset 1,000,000,000", 10**9, R.UNSUPPORTED, "Opset 1000000000"),
        ("an opset of 63 bits", 1 << 62, R.INVALID, "out of supported range"),
    ):
        made = relu()
        made.opset_import[0].version = version
        yield name, made, reason, says
    without, later = relu(), relu()
    del without.opset_import[:]
    later.ir_version = 1_000_000
    yield "no opset", without, R.INVALID, "opset_import"
    yield "an IR version to come", later, R.INVALID, "1000000"


def _tensors() -> Iterator[Told]:
    """Tensors that are not what they say."""
    wide = relu()
    del wide.graph.input[0].type.tensor_type.shape.dim[:]
    for _ in range(3):
        wide.graph.input[0].type.tensor_type.shape.dim.add(dim_value=1 << 40)
    many = [external(f"part-{number}.bin") for number in range(150)]
    for number, tensor in enumerate(many):
        tensor.name = f"w{number}"
    files = model([node("Sum", ["x", *(tensor.name for tensor in many)], ["y"])], initializer=many)
    texts = TensorProto(name="w", data_type=TensorProto.STRING)
    yield "more elements than bytes", _declared(1 << 20, 1 << 10), R.INVALID, "'w'"
    yield "huge dimensions", _declared(1 << 40, 1 << 40), R.TOO_LARGE, "'w'"
    yield "a product of dimensions that overflows", _declared(1 << 32, 1 << 32), R.TOO_LARGE, "'w'"
    yield "a negative dimension", _declared(-5), R.INVALID, "negative"
    yield "an input with huge dimensions", wide, R.TOO_LARGE, "'x'"
    yield "a sparse tensor with huge dimensions", _sparse(1 << 40), R.TOO_LARGE, "a sparse tensor of the model"
    yield "a sparse tensor that is huge when it is dense", _sparse(1 << 30), R.UNLOADABLE, "4294967296 bytes exceeds"
    yield "fewer raw bytes than elements", _raw(FLOAT, 10, bytes(4)), R.INVALID, "raw_data size (4 bytes) is too small"
    yield "more raw bytes than elements", _raw(FLOAT, 1, bytes(40)), R.UNLOADABLE, "does not match expected size"
    yield "elements of a type that there is not", _raw(99, 1, bytes(4)), R.INVALID, "data type"
    yield "texts as raw bytes", _raw(TensorProto.STRING, 1, b"text"), R.INVALID, "should not be stored in raw_data"
    texts.dims.append(3)
    texts.string_data.append(b"one")
    few = model([node("Identity", ["w"], ["t"]), node("Relu", ["x"], ["y"])], initializer=[texts])
    yield "fewer texts than elements", few, R.INVALID, "string_data size (1) is too small"
    yield "data in 150 other files", files, R.EXTERNAL_DATA, "'part-"


def _nesting() -> Iterator[Told]:
    """What is nested deep, or comes back to itself."""
    typed = relu()
    type_ = typed.graph.input.add(name="s").type
    for _ in range(30):
        type_ = type_.sequence_type.elem_type
    type_.tensor_type.elem_type = FLOAT
    yield "graphs nested deep", nested(20), R.TOO_LARGE, "nested more than 16"
    yield "graphs nested deeper than protobuf reads", nested_bytes(60), R.UNREADABLE, "nested too deep"
    yield "types nested deep", typed, R.UNLOADABLE, "seq(seq("
    yield "a function that calls itself", calling(1, twice=False, circle=True), R.INVALID, "calls itself"
    yield "functions in a circle", calling(3, twice=False, circle=True), R.INVALID, "calls itself"
    yield "functions that become very many nodes", calling(40, twice=True), R.TOO_LARGE, "become"
    yield "functions that call each other deep", calling(100, twice=False), R.TOO_LARGE, "deep"


def _running() -> Iterator[Told]:
    """What goes wrong in onnxruntime, which computes what is constant when it loads a model."""
    yield "a division that kills onnxruntime", _divided(*CRASHING), R.UNLOADABLE, "signal 8"
    yield "a division by zero", _divided(1, 0), R.UNLOADABLE, "division by zero"


def _declared(*dims: int) -> ModelProto:
    return in_initializer(TensorProto(name="w", data_type=FLOAT, dims=dims, float_data=[1]))


def _raw(kind: int, elements: int, data: bytes) -> ModelProto:
    return in_initializer(TensorProto(name="w", data_type=kind, dims=[elements], raw_data=data))


def _sparse(elements: int) -> ModelProto:
    values, indices = (helper.make_tensor(*told) for told in (("w", FLOAT, [1], [1.0]), ("i", TensorProto.INT64, [1], [0])))
    made = model([node("ReduceSum", ["w"], ["s"]), node("Add", ["x", "s"], ["y"])])
    made.graph.sparse_initializer.append(SparseTensorProto(values=values, indices=indices, dims=[elements]))
    return made


def _divided(dividend: int, divisor: int) -> ModelProto:
    given = [helper.make_tensor(name, TensorProto.INT64, [1], [n]) for name, n in (("a", dividend), ("b", divisor))]
    nodes = [node("Div", ["a", "b"], ["q"]), node("Cast", ["q"], ["f"], to=FLOAT), node("Add", ["x", "f"], ["y"])]
    return model(nodes, initializer=given)
