"""A model as JSON that people and programs read: the graph without its weights, as much of it as there is room for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto

MAX_TEXT_CHARACTERS = 200
"""Names and texts that are longer end in three dots."""
MAX_ITEMS = 16
"""How much of a list among the attributes is shown."""


class _Room:
    """What may still be added, in bytes of JSON."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes

    def take(self, thing: Any) -> bool:
        self._left -= len(json.dumps(thing)) + 2
        return self._left >= 0


def describe_model(model: ModelProto, max_bytes: int) -> str:
    """JSON text of at most about so many bytes; what is left out is counted under `…_omitted`."""
    room = _Room(max_bytes - 1_000)  # for what is around the lists
    document: dict[str, Any] = {
        "ir_version": model.ir_version,
        "producer": {"name": _short(model.producer_name), "version": _short(model.producer_version)},
        "domain": _short(model.domain),
        "model_version": model.model_version,
    }
    _list(
        document, "opsets", model.opset_import, room, lambda each: {"domain": _short(each.domain), "version": each.version}
    )
    _list(document, "metadata", model.metadata_props, room, lambda each: [_short(each.key), _short(each.value)])
    document["graph"] = _graph(model.graph, room)
    if model.functions:
        _list(
            document, "functions", model.functions, room, lambda each: {"name": _short(each.name), "nodes": len(each.node)}
        )
    return json.dumps(document, ensure_ascii=False)


def _list(into: dict[str, Any], name: str, items: Iterable[Any], room: _Room, describe: Callable[[Any], Any]) -> None:
    shown: list[Any] = []
    omitted = 0
    for item in items:
        described = None if omitted else describe(item)
        if omitted or not room.take(described):
            omitted += 1
        else:
            shown.append(described)
    into[name] = shown
    if omitted:
        into[f"{name}_omitted"] = omitted


def _graph(graph: GraphProto, room: _Room) -> dict[str, Any]:
    described: dict[str, Any] = {"name": _short(graph.name)}
    _list(described, "inputs", graph.input, room, lambda each: {"name": _short(each.name), **_type(each.type)})
    _list(described, "outputs", graph.output, room, lambda each: {"name": _short(each.name), **_type(each.type)})
    _list(described, "nodes", graph.node, room, lambda each: _node(each, room))
    _list(described, "initializers", graph.initializer, room, lambda each: {"name": _short(each.name), **_tensor(each)})
    return described


def _node(node: NodeProto, room: _Room) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": _short(node.name),
        "operator": _short(node.op_type),
        "inputs": [_short(each) for each in node.input],
        "outputs": [_short(each) for each in node.output],
    }
    if node.domain:
        described["domain"] = _short(node.domain)
    if node.attribute:
        described["attributes"] = {_short(each.name): _attribute(each, room) for each in node.attribute}
    return described


def _attribute(attribute: AttributeProto, room: _Room) -> Any:
    """The value of an attribute; only the kind of it where it is a sparse tensor or a type."""
    kind = AttributeProto.AttributeType.Name(attribute.type)
    describe: dict[str, Callable[[Any], Any]] = {
        "FLOAT": _number,
        "INT": int,
        "STRING": _text,
        "TENSOR": _tensor,
        "GRAPH": lambda each: _graph(each, room),
    }
    one, several = describe.get(kind), describe.get(kind.removesuffix("S"))
    if one:
        return one(getattr(attribute, kind[0].lower()))
    return _items(getattr(attribute, kind.lower()), several) if several else {"type": kind}


def _items(items: Any, describe: Callable[[Any], Any]) -> Any:
    shown = [describe(each) for each in items[:MAX_ITEMS]]
    return shown if len(items) <= MAX_ITEMS else {"first": shown, "count": len(items)}


def _tensor(tensor: TensorProto) -> dict[str, Any]:
    return {"type": _type_name(tensor.data_type), "shape": list(tensor.dims[:MAX_ITEMS])}


def _type(type_: TypeProto) -> dict[str, Any]:
    kind = type_.WhichOneof("value")
    if kind != "tensor_type":
        return {"type": kind or "unknown"}
    described: dict[str, Any] = {"type": _type_name(type_.tensor_type.elem_type)}
    if type_.tensor_type.HasField("shape"):
        dims = type_.tensor_type.shape.dim
        described["shape"] = _items(
            dims, lambda each: each.dim_value if each.HasField("dim_value") else _short(each.dim_param)
        )
    return described


def _type_name(data_type: int) -> str:
    """The name of an element type; a number that this version of onnx has no name for stays one."""
    named = TensorProto.DataType.DESCRIPTOR.values_by_number.get(data_type)
    return named.name if named else str(data_type)


def _number(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)  # JSON has no NaN.


def _text(text: bytes) -> str:
    return _short(text[: 4 * MAX_TEXT_CHARACTERS].decode(errors="replace"))


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARACTERS else f"{text[: MAX_TEXT_CHARACTERS - 3]}..."
