"""A graph as a drawing, for Graphviz (DOT) and for Mermaid. Of a large graph it has kinds of operators instead of nodes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from html import escape
from typing import TypeVar

from onnx import GraphProto, NodeProto

Key = TypeVar("Key")

_MAX_LABEL_CHARACTERS = 40
_MAX_EDGES_PER_VERTEX = 8
"""More edges than that for each vertex are not drawn: nobody could follow them."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """Labels of vertices, by their numbers, and edges between those numbers. Inputs and outputs are drawn round."""

    labels: list[str]
    round: frozenset[int]
    edges: list[tuple[int, int, str]]


def draw(graph: GraphProto, max_nodes: int) -> Drawing:
    """A drawing of a graph without the graphs inside its nodes, and without initializers."""
    initialized = {each.name for each in graph.initializer}
    inputs = [each.name for each in graph.input if each.name not in initialized]
    outputs = [each.name for each in graph.output]
    if len(inputs) + len(outputs) + len(graph.node) <= max_nodes:
        return _draw_nodes(graph, inputs, outputs, max_nodes)
    return _draw_operators(graph, max_nodes)


def _draw_nodes(graph: GraphProto, inputs: list[str], outputs: list[str], max_nodes: int) -> Drawing:
    labels = [*inputs, *(_label(node) for node in graph.node), *outputs]
    gives = {name: number for number, name in enumerate(inputs)}
    for number, node in enumerate(graph.node, len(inputs)):
        gives |= dict.fromkeys(node.output, number)
    takes = [*((number, name) for number, node in enumerate(graph.node, len(inputs)) for name in node.input)]
    takes += enumerate(outputs, len(inputs) + len(graph.node))
    edges = dict.fromkeys((gives[name], number, "") for number, name in takes if name and name in gives)
    ends = frozenset((*range(len(inputs)), *range(len(labels) - len(outputs), len(labels))))
    return Drawing(labels=labels, round=ends, edges=list(edges)[: _MAX_EDGES_PER_VERTEX * max_nodes])


def _draw_operators(graph: GraphProto, max_nodes: int) -> Drawing:
    """One vertex for each kind of operator, the most frequent ones, and how often one gives something to another."""
    counts = Counter(node.op_type for node in graph.node)
    shown = {name: number for number, (name, _) in enumerate(_most_frequent(counts, max_nodes))}
    labels = [f"{_short(name)} × {counts[name]}" for name in shown]
    gives = {name: shown.get(node.op_type) for node in graph.node for name in node.output}
    flows = Counter(
        (gives[name], shown[node.op_type])
        for node in graph.node
        if node.op_type in shown
        for name in node.input
        if gives.get(name) is not None
    )
    edges = [
        (start, end, f"× {count}")
        for (start, end), count in _most_frequent(flows, _MAX_EDGES_PER_VERTEX * max_nodes)
        if start is not None
    ]
    return Drawing(labels=labels, round=frozenset(), edges=edges)


def _most_frequent(counts: Counter[Key], count: int) -> list[tuple[Key, int]]:
    """As `most_common`, which imports a module when it is called, and nothing can be opened any more."""
    return sorted(counts.items(), key=lambda item: -item[1])[:count]


def to_dot(drawing: Drawing) -> str:
    """The drawing in Graphviz's language."""
    lines = ["digraph model {", "  node [shape=box];"]
    for number, label in enumerate(drawing.labels):
        shape = ", shape=ellipse" if number in drawing.round else ""
        lines.append(f"  n{number} [label={_dot_text(label)}{shape}];")
    lines += (f"  n{start} -> n{end}{f' [label={_dot_text(label)}]' * bool(label)};" for start, end, label in drawing.edges)
    return "\n".join([*lines, "}", ""])


def to_mermaid(drawing: Drawing) -> str:
    """The drawing as a Mermaid flowchart."""
    lines = ["flowchart TD"]
    for number, label in enumerate(drawing.labels):
        begin, end = ("([", "])") if number in drawing.round else ("[", "]")
        lines.append(f"  n{number}{begin}{_mermaid_text(label)}{end}")
    lines += (f"  n{start} -->{f'|{_mermaid_text(label)}|' * bool(label)} n{end}" for start, end, label in drawing.edges)
    return "\n".join([*lines, ""])


def _label(node: NodeProto) -> str:
    inside = sum(bool(each.HasField("g")) + len(each.graphs) for each in node.attribute)
    return _short(node.op_type) + (f" ({inside} graphs inside)" if inside else "")


def _short(text: str) -> str:
    return text if len(text) <= _MAX_LABEL_CHARACTERS else f"{text[: _MAX_LABEL_CHARACTERS - 3]}..."


def _plain(text: str) -> str:
    """A text on one line: a name may hold anything."""
    return "".join(each if each.isprintable() else " " for each in _short(text))


def _dot_text(text: str) -> str:
    said = _plain(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{said}"'


def _mermaid_text(text: str) -> str:
    """In quotes, with everything that is HTML or ends the quotes as entities, which Mermaid writes with `#`."""
    said = escape(_plain(text).replace("#", "&num;"), quote=True).replace("&amp;num;", "#35;")
    return '"' + said.replace("&", "#") + '"'
