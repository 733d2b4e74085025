"""Models for tests, made with onnx's own helper. Some of them are parts of hostile ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

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
