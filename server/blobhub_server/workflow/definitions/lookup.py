"""What is looked up in a definition while it is checked and compiled, each thing in one step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any

from blobhub_server.blobtypes.expressions import Computed, is_computed
from blobhub_server.workflow.components.contract import Component as ComponentType
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.components.scopes import ScopeComponent
from blobhub_server.workflow.definitions.document import DATA_INPUT, DATA_OUTPUT, Component, Connection, Definition
from blobhub_server.workflow.values import type_of

START = "flow.start"


class Lookup:
    """A definition by its ids. Of components with the same id, which is an error, the last is found."""

    def __init__(self, definition: Definition, registry: ComponentRegistry) -> None:
        self.definition = definition
        self.lacking = registry.lacking
        """The types of components that need what no blob type offers."""
        self.components = {component.id: component for component in definition.components}
        self.types = {component.id: registry.get(component.type) for component in definition.components}
        self.settings = {component.id: settings_of(component) for component in definition.components}
        """The values set on a component's data inputs, by its id and their name."""
        self.computed = {component.id: computed_of(component) for component in definition.components}
        """Those that are expressions or templates, likewise."""
        self.outgoing: dict[str, list[Connection]] = defaultdict(list)
        self.incoming: dict[str, list[Connection]] = defaultdict(list)
        self.fed: dict[str, set[str]] = defaultdict(set)
        """The data inputs that something is connected to, by component."""
        self.carried: dict[str, set[str]] = defaultdict(set)
        """The routes that a connection of control begins with, by component."""
        self._own = {
            component.id: {(port.category, port.route) for port in component.ports} for component in definition.components
        }
        for connection in definition.connections:
            self.outgoing[connection.source_id].append(connection)
            self.incoming[connection.target_id].append(connection)
            if connection.control:
                self.carried[connection.source_id].add(connection.route)
            else:
                self.fed[connection.target_id].add(connection.target_route)

    def has_port(self, id_: str, type_: ComponentType, category: str, route: str) -> bool:
        """Whether a component has a data port, by its type or its own definition."""
        if (category, route) in declared_ports(type_):
            return True
        return type_.open_ports and ((category, route) in self._own[id_] or bool(route))

    def scope_path(self, id_: str) -> tuple[str, ...]:
        """The scopes that a component is inside, outermost first; cut where they are in a circle."""
        path: list[str] = []
        at = self.components[id_].parent_id
        while at and at not in path:
            path.append(at)
            at = self.components[at].parent_id if at in self.components else ""
        return tuple(reversed(path))

    def reachable(self, begin: Iterable[str] | None = None) -> set[str]:
        """The ids that control can come to from some components, and these themselves; from the start unless told."""
        reached: set[str] = set()
        starts = [component.id for component in self.definition.components if component.type == START]
        left = [*(starts if begin is None else begin)]
        while left:
            id_ = left.pop()
            if id_ not in reached:
                reached.add(id_)
                left += {connection.target_id for connection in self.outgoing.get(id_, ()) if connection.control}
        return reached


def leads_inside(lookup: Lookup, connection: Connection) -> bool:
    """Whether a connection of control is by a route of a scope that leads inside."""
    type_ = lookup.types.get(connection.source_id)
    return isinstance(type_, ScopeComponent) and connection.route in type_.inside


@cache
def declared_ports(type_: ComponentType) -> frozenset[tuple[str, str]]:
    """The ports that a component type has whatever a definition adds: (category, route) of each."""
    error = [(DATA_OUTPUT, "error")] if type_.may_fail_by_route else []
    return frozenset([*((port.category, port.route) for port in type_.ports), *error])


def settings_of(component: Component) -> dict[str, Any]:
    """The values set on a component's data inputs, by name, but for those that are computed."""
    return {route: value for route, value in _set_values(component).items() if not is_computed(value)}


def computed_of(component: Component) -> dict[str, Computed]:
    """The expressions and templates set on a component's data inputs, by name."""
    set_values = _set_values(component).items()
    return {route: computed for route, value in set_values if (computed := Computed.of(value)) is not None}


def _set_values(component: Component) -> dict[str, Any]:
    return {port.route: port.value for port in component.ports if port.category == DATA_INPUT and port.has_value}


def places_of(component: Component) -> dict[str, str]:
    """Where in its component each of those values is, by name; inside of a value object."""
    return {
        port.route: f"ports[{number}].value{_inside(port.value)}"
        for number, port in enumerate(component.ports)
        if port.category == DATA_INPUT and port.has_value
    }


def _inside(value: Any) -> str:
    kind = type_of(value)
    inside = {"boolean": "flag", "choice": "id", None: ""}.get(kind, kind)
    return f".{inside}" if inside else ""


def may_add(type_: ComponentType, category: str) -> bool:
    """Whether a definition may give a component further ports of a category."""
    return type_.open_ports if category in (DATA_INPUT, DATA_OUTPUT) else type_.open_routes
