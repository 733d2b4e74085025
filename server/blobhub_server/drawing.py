"""Drawings of graphs as text, for Graphviz (DOT) and for Mermaid. Names in them may hold anything.

It opens nothing: a process that may not open files any more draws, too.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

MAX_LABEL_CHARACTERS = 40
"""How long one line of a label is; the end of a longer one is left out."""
MAX_TITLE_CHARACTERS = 120


class Shape(Enum):
    """The form of a vertex: Graphviz's name of it, and what Mermaid writes around the label."""

    BOX = ("box", "[", "]")
    ROUND = ("ellipse", "([", "])")
    CYLINDER = ("cylinder", "[(", ")]")
    HEXAGON = ("hexagon", "{{", "}}")


class Stroke(Enum):
    """How an edge is drawn: Graphviz's style, and Mermaid's arrow."""

    PLAIN = ("", "-->")
    BOLD = ("bold", "==>")
    DOTTED = ("dotted", "-.->")


@dataclass(frozen=True, slots=True)
class Vertex:
    """A vertex with the lines of its label. It is in a group, by number; `fill` is one of the drawing's `fills`."""

    lines: Sequence[str]
    shape: Shape = Shape.BOX
    group: int | None = None
    fill: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge from one vertex to another, by their numbers."""

    start: int
    end: int
    label: str = ""
    stroke: Stroke = Stroke.PLAIN


@dataclass(frozen=True, slots=True)
class Group:
    """A frame around vertices. It may be within another one, by number."""

    label: str
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class Drawing:
    """A graph to be drawn. `fills` are colours such as `#ffc9c9` by their names, which are lower-case letters."""

    vertices: Sequence[Vertex]
    edges: Sequence[Edge] = ()
    groups: Sequence[Group] = ()
    fills: Mapping[str, str] = field(default_factory=dict)
    title: str = ""


def to_dot(drawing: Drawing, name: str) -> str:
    """The drawing in Graphviz's language; `name` is a word."""
    lines = [f"digraph {name} {{"]
    if drawing.title:
        lines.append(f"  label={_dot_text([drawing.title], MAX_TITLE_CHARACTERS)}; labelloc=t;")
    lines.append("  node [shape=box];")
    lines += _nested(drawing, _begin_in_dot, "}", _dot_vertex)
    for edge in drawing.edges:
        options = {"label": _dot_text([edge.label]) if edge.label else "", "style": edge.stroke.value[0]}
        lines.append(f"  n{edge.start} -> n{edge.end}{_dot_options(options)};")
    return "\n".join([*lines, "}", ""])


def to_mermaid(drawing: Drawing) -> str:
    """The drawing as a Mermaid flowchart."""
    lines = ["---", f"title: {json.dumps(_plain(drawing.title, MAX_TITLE_CHARACTERS))}", "---"] if drawing.title else []
    lines.append("flowchart TD")
    lines += _nested(drawing, _begin_in_mermaid, "end", _mermaid_vertex)
    for edge in drawing.edges:
        label = f"|{_mermaid_text([edge.label])}|" if edge.label else ""
        lines.append(f"  n{edge.start} {edge.stroke.value[1]}{label} n{edge.end}")
    used = {vertex.fill for vertex in drawing.vertices}
    lines += (f"  classDef {fill} fill:{colour},color:#212529" for fill, colour in drawing.fills.items() if fill in used)
    return "\n".join([*lines, ""])


def _nested(
    drawing: Drawing, begin: Callable[[int, str], str], end: str, draw: Callable[[Drawing, int], str]
) -> Iterator[str]:
    """A line for each vertex, and lines around those in a group."""
    vertices, groups = defaultdict[int | None, list[int]](list), defaultdict[int | None, list[int]](list)
    for number, vertex in enumerate(drawing.vertices):
        vertices[vertex.group].append(number)
    for number, group in enumerate(drawing.groups):
        groups[group.parent].append(number)

    def inside(group: int | None, indent: str) -> Iterator[str]:
        yield from (f"{indent}{draw(drawing, number)}" for number in vertices[group])
        for number in groups[group]:
            yield f"{indent}{begin(number, drawing.groups[number].label)}"
            yield from inside(number, f"{indent}  ")
            yield f"{indent}{end}"

    return inside(None, "  ")


def _begin_in_dot(number: int, label: str) -> str:
    return f"subgraph cluster_{number} {{ label={_dot_text([label])};"


def _begin_in_mermaid(number: int, label: str) -> str:
    return f"subgraph g{number}[{_mermaid_text([label])}]"


def _dot_vertex(drawing: Drawing, number: int) -> str:
    vertex = drawing.vertices[number]
    options = {"label": _dot_text(vertex.lines), "shape": "" if vertex.shape is Shape.BOX else vertex.shape.value[0]}
    if vertex.fill:
        options |= {"style": "filled", "fillcolor": f'"{drawing.fills[vertex.fill]}"'}
    return f"n{number}{_dot_options(options)};"


def _dot_options(options: Mapping[str, str]) -> str:
    said = ", ".join(f"{name}={value}" for name, value in options.items() if value)
    return f" [{said}]" if said else ""


def _mermaid_vertex(drawing: Drawing, number: int) -> str:
    vertex = drawing.vertices[number]
    _, begin, end = vertex.shape.value
    return f"n{number}{begin}{_mermaid_text(vertex.lines)}{end}" + (f":::{vertex.fill}" if vertex.fill else "")


def _plain(text: str, most: int = MAX_LABEL_CHARACTERS) -> str:
    """A text on one line, and not too long: a name may hold anything."""
    short = text if len(text) <= most else f"{text[: most - 3]}..."
    return "".join(each if each.isprintable() else " " for each in short)


# Graphviz reads entities of HTML in texts, too.
_IN_DOT = str.maketrans({"\\": "\\\\", '"': '\\"', "&": "&amp;"})


def _dot_text(lines: Iterable[str], most: int = MAX_LABEL_CHARACTERS) -> str:
    said = "\\n".join(_plain(line, most).translate(_IN_DOT) for line in lines)
    return f'"{said}"'


# In a text in quotes Mermaid reads HTML, Markdown, `\n`, formulas between `$$`, and anywhere directives `%%{…}%%`. It writes
# entities with `#`.
_IN_MERMAID = str.maketrans(
    {'"': "#quot;", "&": "#amp;", "<": "#lt;", ">": "#gt;"} | {each: f"#{ord(each)};" for each in "#'`*\\$%|~"}
)
_LIST = re.compile(r"(\s*(?:[0-9]+(?=[.)])|(?=[-+])))(.)")
"""What would be an item of a list in Markdown: its number, and the sign that makes it one."""


def _mermaid_text(lines: Iterable[str]) -> str:
    said = "<br/>".join(_mermaid_line(_plain(line).translate(_IN_MERMAID)) for line in lines)
    return f'"{said}"'


def _mermaid_line(text: str) -> str:
    item = _LIST.match(text)
    said = f"{item[1]}#{ord(item[2])};{text[item.end() :]}" if item else text
    # After `style` or `classDef`, and anywhere in the line a colon, it takes what is like a colour for one.
    return re.sub(r":(?=\S)", "#58;", said)
