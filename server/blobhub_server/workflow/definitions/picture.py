"""A definition as a drawing, and, when asked, what an execution of it has done on it.

It is drawn as far as it can be read: a draft may have connections that lead nowhere, and scopes that are inside themselves.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from blobhub_server.drawing import Drawing, Edge, Group, Shape, Stroke, Vertex
from blobhub_server.workflow.components.data import Value
from blobhub_server.workflow.components.flow import End, Start
from blobhub_server.workflow.definitions.document import Component, Connection, Definition

MAX_DEPTH = 8
"""How deep groups are drawn within each other; what is deeper is drawn there. Scopes that run are no deeper."""

_FILLS = {"failed": "#ffc9c9", "running": "#a5d8ff", "waiting": "#ffec99", "done": "#b2f2bb", "left": "#dee2e6"}
"""The colour of a component, by the first of these that is the state of one of its steps."""
_QUIET = frozenset({"next", "success"})
"""Routes that are not written on their connections."""
_MAX_ROUTE = 25
"""How much of a route is written: how often it was taken is said after it."""
_SHAPES = {Start.type: Shape.ROUND, End.type: Shape.ROUND, Value.type: Shape.CYLINDER}


@dataclass(slots=True)
class Counts:
    """How many steps of a component are in which state, and how often it has led where, by route.

    The states are `done`, `failed`, `running`, `waiting`, `retrying` (waits for its next attempt), and `left`, which is that
    of a step that was given up because the scope or the execution around it ended.
    """

    states: Counter[str] = field(default_factory=Counter)
    routes: Counter[str] = field(default_factory=Counter)

    @property
    def line(self) -> str:
        """The states for people: `3 done, 1 failed`."""
        return ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()) if count)

    @property
    def fill(self) -> str:
        """The name of its colour."""
        shown = {"waiting" if state == "retrying" else state for state, count in self.states.items() if count}
        return next((name for name in _FILLS if name in shown), "")


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing, and how many components and connections are not on it because there are too many."""

    drawing: Drawing
    omitted_components: int
    omitted_connections: int


def draw(
    definition: Definition,
    *,
    max_components: int,
    max_connections: int,
    counts: Mapping[str, Counts] | None = None,
    title: str = "",
) -> Picture:
    """Draw a definition. `counts` are those of an execution, by component; one that has none was not entered.

    Where there is more than is drawn, what is fewer connections away from the start goes first, and before that what was
    entered. Connections of control go before those of data, of which there is one line for each two components.
    """
    components: dict[str, Component] = {}
    for component in definition.components:
        components.setdefault(component.id, component)
    drawn = _choose(definition, components, max_components, counts)
    numbers = {id_: number for number, id_ in enumerate(id_ for id_ in components if id_ in drawn)}
    vertices, groups = _vertices(components, numbers, counts)
    omitted = len(components) - len(numbers)
    if omitted:
        vertices.append(Vertex(lines=[f"and {omitted:,} more"], shape=Shape.ROUND))
    known = [each for each in definition.connections if each.source_id in components and each.target_id in components]
    shown = [each for each in known if each.source_id in numbers and each.target_id in numbers]
    edges = [*_control(shown, numbers, counts or {}), *_data(shown, numbers)]
    return Picture(
        drawing=Drawing(
            vertices=vertices,
            edges=edges[:max_connections],
            groups=groups,
            fills={} if counts is None else _FILLS,
            title=title,
        ),
        omitted_components=omitted,
        omitted_connections=len(known) - len(shown) + max(0, len(edges) - max_connections),
    )


def _choose(
    definition: Definition, components: Mapping[str, Component], most: int, counts: Mapping[str, Counts] | None
) -> Collection[str]:
    """The ids of the components that are drawn."""
    if len(components) <= most:
        return components.keys()
    order = _from_the_start(definition, components)
    if counts is not None:
        order.sort(key=lambda id_: id_ not in counts)
    return set(order[:most])


def _from_the_start(definition: Definition, components: Mapping[str, Component]) -> list[str]:
    """All components, those that are fewer connections away from the start first."""
    targets = defaultdict[str, list[str]](list)
    for connection in definition.connections:
        targets[connection.source_id].append(connection.target_id)
    ahead = deque(id_ for id_, component in components.items() if component.type == Start.type)
    found = dict.fromkeys(ahead)
    while ahead:
        for id_ in targets[ahead.popleft()]:
            if id_ in components and id_ not in found:
                found[id_] = None
                ahead.append(id_)
    return [*found, *(id_ for id_ in components if id_ not in found)]


def _vertices(
    components: Mapping[str, Component], numbers: Mapping[str, int], counts: Mapping[str, Counts] | None
) -> tuple[list[Vertex], list[Group]]:
    """The components that are drawn; each scope is in a group with what is inside of it."""
    paths = _scope_paths(components, {components[id_].parent_id for id_ in numbers} & numbers.keys())
    groups = {id_: number for number, id_ in enumerate(id_ for id_ in numbers if id_ in paths[id_])}
    vertices = []
    for id_ in numbers:
        component, around = components[id_], paths[id_]
        shape = Shape.HEXAGON if id_ in groups else _SHAPES.get(component.type, Shape.BOX)
        count = None if counts is None else counts.get(id_)
        vertices.append(
            Vertex(
                lines=_lines(component, count),
                shape=shape,
                group=groups[around[-1]] if around else None,
                fill="" if count is None else count.fill,
            )
        )
    made = []
    for id_ in groups:
        around = paths[id_][: paths[id_].index(id_)]
        made.append(Group(label=_name(components[id_]), parent=groups[around[-1]] if around else None))
    return vertices, made


def _scope_paths(components: Mapping[str, Component], scopes: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """For each component those of the scopes that it is inside, outermost first, and itself where it is one of them.

    Of scopes that are inside each other in a circle, one is taken to be outermost.
    """
    paths: dict[str, tuple[str, ...]] = {}
    for component in components.values():
        inward = dict[str, None]()
        at = component.id
        while at in components and at not in paths and at not in inward:
            inward[at] = None
            at = components[at].parent_id
        path = paths.get(at, ())
        for id_ in reversed(inward):
            paths[id_] = path = (*path, id_)[:MAX_DEPTH] if id_ in scopes else path
    return paths


def _lines(component: Component, count: Counts | None) -> list[str]:
    """What is written on a component: its name, what it is, and what has become of it."""
    name = _name(component)
    kind = component.type if name == component.id else f"{component.id}: {component.type}"
    return [name, kind, *([count.line] if count is not None else [])]


def _name(component: Component) -> str:
    return component.name or component.id


def _control(connections: Iterable[Connection], numbers: Mapping[str, int], counts: Mapping[str, Counts]) -> Iterator[Edge]:
    """A line for each two components and route; a bold one where control has passed."""
    ways = dict.fromkeys((each.source_id, each.target_id, each.route) for each in connections if each.control)
    for source, target, route in ways:
        passed = counts[source].routes[route] if source in counts else 0
        said = "" if route in _QUIET else route[:_MAX_ROUTE]
        yield Edge(
            start=numbers[source],
            end=numbers[target],
            label=f"{said} × {passed:,}".strip() if passed > 1 else said,
            stroke=Stroke.BOLD if passed else Stroke.PLAIN,
        )


def _data(connections: Iterable[Connection], numbers: Mapping[str, int]) -> Iterator[Edge]:
    """A dotted line for each two components, with the names of what the first gives."""
    names = defaultdict[tuple[str, str], dict[str, None]](dict)
    for connection in connections:
        if not connection.control:
            names[connection.source_id, connection.target_id][connection.source_route] = None
    for (source, target), given in names.items():
        yield Edge(start=numbers[source], end=numbers[target], label=", ".join(given), stroke=Stroke.DOTTED)
