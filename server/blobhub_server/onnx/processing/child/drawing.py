"""A graph to be drawn. Of a large one it has kinds of operators instead of nodes."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from onnx import GraphProto, NodeProto

from blobhub_server.drawing import Drawing, Edge, Shape, Vertex

Key = TypeVar("Key")

_MAX_EDGES_PER_VERTEX = 8
"""More edges than that for each vertex are not drawn: nobody could follow them."""
_MAX_OPERATOR_CHARACTERS = 30
"""How much of an operator's name is drawn where its number is said after it."""


def draw(graph: GraphProto, max_nodes: int) -> Drawing:
    """A drawing of a graph without the graphs inside its nodes, and without initializers. Inputs and outputs are round."""
    initialized = {each.name for each in graph.initializer}
    inputs = [each.name for each in graph.input if each.name not in initialized]
    outputs = [each.name for each in graph.output]
    if len(inputs) + len(outputs) + len(graph.node) <= max_nodes:
        return _draw_nodes(graph, inputs, outputs, max_nodes)
    return _draw_operators(graph, max_nodes)


def _draw_nodes(graph: GraphProto, inputs: list[str], outputs: list[str], max_nodes: int) -> Drawing:
    vertices = [
        *(Vertex(lines=[name], shape=Shape.ROUND) for name in inputs),
        *(Vertex(lines=_lines(node)) for node in graph.node),
        *(Vertex(lines=[name], shape=Shape.ROUND) for name in outputs),
    ]
    gives = {name: number for number, name in enumerate(inputs)}
    for number, node in enumerate(graph.node, len(inputs)):
        gives |= dict.fromkeys(node.output, number)
    takes = [*((number, name) for number, node in enumerate(graph.node, len(inputs)) for name in node.input)]
    takes += enumerate(outputs, len(inputs) + len(graph.node))
    pairs = list(dict.fromkeys((gives[name], number) for number, name in takes if name and name in gives))
    edges = [Edge(start=start, end=end) for start, end in pairs[: _MAX_EDGES_PER_VERTEX * max_nodes]]
    return Drawing(vertices=vertices, edges=edges)


def _draw_operators(graph: GraphProto, max_nodes: int) -> Drawing:
    """One vertex for each kind of operator, the most frequent ones, and how often one gives something to another."""
    counts = Counter(node.op_type for node in graph.node)
    shown = {name: number for number, (name, _) in enumerate(_most_frequent(counts, max_nodes))}
    gives = {name: shown.get(node.op_type) for node in graph.node for name in node.output}
    flows = Counter(
        (gives[name], shown[node.op_type])
        for node in graph.node
        if node.op_type in shown
        for name in node.input
        if gives.get(name) is not None
    )
    edges = [
        Edge(start=start, end=end, label=f"× {count}")
        for (start, end), count in _most_frequent(flows, _MAX_EDGES_PER_VERTEX * max_nodes)
        if start is not None
    ]
    return Drawing(vertices=[Vertex(lines=[f"{_short(name)} × {counts[name]}"]) for name in shown], edges=edges)


def _most_frequent(counts: Counter[Key], count: int) -> list[tuple[Key, int]]:
    """As `most_common`, which imports a module when it is called, and nothing can be opened any more."""
    return sorted(counts.items(), key=lambda item: -item[1])[:count]


def _lines(node: NodeProto) -> list[str]:
    inside = sum(bool(each.HasField("g")) + len(each.graphs) for each in node.attribute)
    return [node.op_type, *([f"({inside} graphs inside)"] if inside else [])]


def _short(operator: str) -> str:
    return operator if len(operator) <= _MAX_OPERATOR_CHARACTERS else f"{operator[: _MAX_OPERATOR_CHARACTERS - 3]}..."
