"""Models for tests, sound and hostile, made with onnx's own helper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from blobhub_server.onnx.refusal import RefusalReason
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, helper

FLOAT = TensorProto.FLOAT
OPSETS = (helper.make_opsetid("", 21),)


def magika() -> Path:
    """The model of magika, which tells the kind of a file by its bytes."""
    return Path(str(files("magika"))) / "models" / "standard_v3_3" / "model.onnx"


def graph(nodes: Sequence[NodeProto], **rest: object) -> GraphProto:
    """A graph from `x` to `y`, of one free dimension each."""
    x, y = (helper.make_tensor_value_info(name, FLOAT, ["n"]) for name in "xy")
    return helper.make_graph(nodes, "graph", [x], [y], **rest)


def model(
    nodes: Sequence[NodeProto], *, domains: Sequence[str] = (), functions: Sequence[FunctionProto] = (), **rest: object
) -> ModelProto:
    """A model of that graph."""
    opsets = [*OPSETS, *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(
        graph(nodes, **rest), opset_imports=opsets, functions=functions, ir_version=10, producer_name="blobhub-tests"
    )


def relu() -> ModelProto:
    """The smallest sound model."""
    return model([helper.make_node("Relu", ["x"], ["y"], name="cut")])


def external(location: str, *, told: bool = True) -> TensorProto:
    """A tensor of one number that is in another file; one that is not told holds the number, too."""
    tensor = TensorProto(name="weights", data_type=FLOAT, dims=[1])
    tensor.external_data.add(key="location", value=location)
    if told:
        tensor.data_location = TensorProto.EXTERNAL
    else:
        tensor.float_data.append(1)
    return tensor


def in_initializer(tensor: TensorProto) -> ModelProto:
    """A tensor as what is added to the input."""
    return model([helper.make_node("Add", ["x", tensor.name], ["y"])], initializer=[tensor])


def in_attribute(tensor: TensorProto) -> ModelProto:
    """A tensor as the value of a node."""
    constant = helper.make_node("Constant", [], ["c"], name="secret", value=tensor)
    return model([constant, helper.make_node("Add", ["x", "c"], ["y"])])


def in_subgraph(tensor: TensorProto) -> ModelProto:
    """A tensor in a branch of an If."""
    out = helper.make_tensor_value_info("b", FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Identity", [tensor.name], ["b"])], "branch", [], [out], [tensor])
    condition = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True]))
    return model([condition, helper.make_node("If", ["c"], ["y"], name="if", then_branch=branch, else_branch=branch)])


def in_function(tensor: TensorProto) -> ModelProto:
    """A tensor in a function."""
    nodes = [helper.make_node("Constant", [], ["c"], value=tensor), helper.make_node("Add", ["a", "c"], ["b"])]
    function = helper.make_function("own", "shift", ["a"], ["b"], nodes, OPSETS)
    return model([helper.make_node("shift", ["x"], ["y"], domain="own")], domains=["own"], functions=[function])


def in_sparse(tensor: TensorProto) -> ModelProto:
    """A tensor as the values of a sparse one."""
    indices = helper.make_tensor("indices", TensorProto.INT64, [1], [0])
    sparse = SparseTensorProto(values=tensor, indices=indices, dims=[1])
    made = model([helper.make_node("Add", ["x", tensor.name], ["y"])])
    made.graph.sparse_initializer.append(sparse)
    return made


def in_training(tensor: TensorProto) -> ModelProto:
    """A tensor in what a training begins with."""
    made = relu()
    made.training_info.add().initialization.CopyFrom(graph([], initializer=[tensor]))
    return made


PLACES: tuple[Callable[[TensorProto], ModelProto], ...] = (
    in_initializer,
    in_attribute,
    in_subgraph,
    in_function,
    in_sparse,
    in_training,
)


def nested(depth: int) -> ModelProto:
    """An If in an If in an If."""
    out = helper.make_tensor_value_info("b", FLOAT, ["n"])
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "branch", [], [out])
    for _ in range(depth):
        node = helper.make_node("If", ["c"], ["b"], then_branch=branch, else_branch=branch)
        branch = helper.make_graph([node], "branch", [], [out])
        branch.node[0].attribute[1].g.CopyFrom(graph([]))  # Both would be twice as many with each.
    condition = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True]))
    return model([condition, helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)])


def nested_bytes(depth: int) -> bytes:
    """A graph in an attribute of a node of a graph, and so on, deeper than protobuf writes it either."""
    data = b""
    for _ in range(depth):
        for field in (6, 5, 1):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            data = _field(field, data)
    return b"\x08\x0a" + _field(7, data)  # ModelProto.ir_version and graph


def _field(number: int, data: bytes) -> bytes:
    length, size = bytearray(), len(data)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + data


def calling(count: int, twice: bool, circle: bool = False) -> ModelProto:
    """Functions each of which calls the next, once or twice; the last may call the first."""
    functions = []
    for number in range(count):
        last = number == count - 1
        name = ("f0" if circle else "Relu") if last else f"f{number + 1}"
        domain = "" if last and not circle else "own"
        nodes = [helper.make_node(name, ["a"], ["m"], domain=domain)]
        nodes.append(helper.make_node(name if twice else "Relu", ["m"], ["b"], domain=domain if twice else ""))
        opsets = [*OPSETS, helper.make_opsetid("own", 1)]
        functions.append(helper.make_function("own", f"f{number}", ["a"], ["b"], nodes, opsets))
    return model([helper.make_node("f0", ["x"], ["y"], domain="own")], domains=["own"], functions=functions)


def filled(*dims: int, products: int = 0) -> ModelProto:
    """A model that makes a constant of so many dimensions while it is loaded, and multiplies it with itself."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [len(dims)], dims)
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["m0"])]
    nodes += (helper.make_node("MatMul", [f"m{number}"] * 2, [f"m{number + 1}"]) for number in range(products))
    nodes += [helper.make_node("ReduceSum", [f"m{products}"], ["s"]), helper.make_node("Add", ["x", "s"], ["y"])]
    return model(nodes, initializer=[shape])


def _opset(version: int) -> ModelProto:
    made = relu()
    made.opset_import[0].version = version
    return made


def _declared(*dims: int) -> ModelProto:
    return in_initializer(TensorProto(name="w", data_type=FLOAT, dims=dims, float_data=[1]))


def _wide_input() -> ModelProto:
    made = relu()
    del made.graph.input[0].type.tensor_type.shape.dim[:]
    for _ in range(3):
        made.graph.input[0].type.tensor_type.shape.dim.add(dim_value=1 << 40)
    return made


@dataclass(frozen=True)
class Hostile:
    """Bytes that are refused, and what the message says."""

    name: str
    data: bytes
    reason: RefusalReason
    says: str


def hostile() -> list[Hostile]:
    """What is no good model, one of each kind; models with external data stand for themselves, in `PLACES`."""
    node, good, R = helper.make_node, relu().SerializeToString(), RefusalReason
    cycle = model([node("Add", ["x", "b"], ["a"], name="first"), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])])
    polyglot = ModelProto(producer_name="xxORTM" + "x" * 200, ir_version=10)
    made: list[tuple[str, ModelProto | bytes, RefusalReason, str]] = [
        ("nothing", b"", R.UNREADABLE, "not an ONNX model"),
        ("garbage", bytes(range(256)) * 40, R.UNREADABLE, "not an ONNX model"),
        ("text", b"<html>no model</html>" * 100, R.UNREADABLE, "not an ONNX model"),
        ("truncated", magika().read_bytes()[:100_000], R.UNREADABLE, "truncated"),
        ("without a graph", polyglot, R.UNREADABLE, "no graph"),
        ("names that are no text", good.replace(b"cut", b"c\xff\xfe"), R.UNREADABLE, "not UTF-8"),
        ("a cycle", cycle, R.INVALID, "'b' of node: name: first"),
        ("an output that nobody gives", model([node("Relu", ["x"], ["z"])]), R.INVALID, "y"),
        ("an unknown operator", model([node("Foo", ["x"], ["y"], name="n")]), R.UNSUPPORTED, "Foo"),
        (
            "an unknown domain",
            model([node("Foo", ["x"], ["y"], name="n", domain="my")], domains=["my"]),
            R.UNSUPPORTED,
            "'n'",
        ),
        (
            "an unknown operator of a known domain",
            model([node("Foo", ["x"], ["y"], domain="com.microsoft")], domains=["com.microsoft"]),
            R.UNSUPPORTED,
            "'Foo' of the domain 'com.microsoft'",
        ),
        ("an opset to come", _opset(999), R.UNSUPPORTED, "999"),
        ("more elements than bytes", _declared(1 << 20, 1 << 10), R.INVALID, "'w'"),
        ("huge dimensions", _declared(1 << 40, 1 << 40), R.TOO_LARGE, "'w'"),
        ("a product of dimensions that overflows", _declared(1 << 32, 1 << 32), R.TOO_LARGE, "'w'"),
        ("a negative dimension", _declared(-5), R.INVALID, "negative"),
        ("an input with huge dimensions", _wide_input(), R.TOO_LARGE, "'x'"),
        ("graphs nested deep", nested(20), R.TOO_LARGE, "nested more than 16"),
        ("graphs nested deeper than protobuf reads", nested_bytes(60), R.UNREADABLE, "nested too deep"),
        ("functions in a circle", calling(3, twice=False, circle=True), R.INVALID, "calls itself"),
        ("functions that become very many nodes", calling(40, twice=True), R.TOO_LARGE, "become"),
        ("functions that call each other deep", calling(100, twice=False), R.TOO_LARGE, "deep"),
    ]
    return [
        Hostile(name=name, data=data if isinstance(data, bytes) else data.SerializeToString(), reason=reason, says=says)
        for name, data, reason, says in made
    ]
