"""Finds everything that is wrong with a definition, at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from blobhub_server.blobtypes.expressions import ExpressionError, parse, unknown_name
from blobhub_server.workflow.components.contract import Component as ComponentType
from blobhub_server.workflow.components.contract import ComponentKind, ExpressionSetting
from blobhub_server.workflow.components.expressions import INPUTS
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.definitions.document import (
    DATA_INPUT,
    DATA_OUTPUT,
    Component,
    Connection,
    Definition,
    Problem,
    Severity,
)
from blobhub_server.workflow.definitions.document import ProblemType as P
from blobhub_server.workflow.values import fits, type_of, unwrap

START = "flow.start"


def check(definition: Definition, registry: ComponentRegistry) -> list[Problem]:
    """Every problem, in document order. A definition without one can be run."""
    return list(_Check(definition, registry).problems())


class _Check:
    def __init__(self, definition: Definition, registry: ComponentRegistry) -> None:
        self._definition = definition
        self._components = {component.id: component for component in definition.components}
        self._types = {component.id: registry.get(component.type) for component in definition.components}
        self._fed = {(c.target_id, c.target_route) for c in definition.connections if not c.control}

    def problems(self) -> Iterator[Problem]:
        yield from self._starts()
        yield from self._duplicates()
        reached = self._reachable()
        for number, component in enumerate(self._definition.components):
            path = f"components[{number}]"
            type_ = self._types[component.id]
            if type_ is None:
                yield Problem(
                    type=P.UNKNOWN_COMPONENT_TYPE,
                    component_id=component.id,
                    path=f"{path}.type",
                    message=f"no component type {component.type!r} is installed",
                )
                continue
            yield from self._ports(component, type_, path)
            yield from _policy(component, path)
            if type_.kind is not ComponentKind.DATA and component.id not in reached:
                yield Problem(
                    type=P.UNREACHABLE_COMPONENT, component_id=component.id, path=path, message="control never reaches it"
                )
        for number, connection in enumerate(self._definition.connections):
            yield from self._connection(connection, f"connections[{number}]")

    def _starts(self) -> Iterator[Problem]:
        starts = [component.id for component in self._definition.components if component.type == START]
        if not starts:
            yield Problem(
                type=P.NO_START, component_id="", path="components", message=f"there is no component of type {START}"
            )
        for id_ in starts[1:]:
            yield Problem(
                type=P.SEVERAL_STARTS,
                component_id=id_,
                path="components",
                message=f"there is more than one component of type {START}",
            )

    def _duplicates(self) -> Iterator[Problem]:
        for name in ("components", "connections"):
            counted = Counter(item.id for item in getattr(self._definition, name))
            for id_, count in counted.items():
                if count > 1:
                    owner = id_ if name == "components" else ""
                    yield Problem(
                        type=P.DUPLICATE_ID, component_id=owner, path=name, message=f"{count} {name} have the id {id_!r}"
                    )

    def _reachable(self) -> set[str]:
        onward: dict[str, list[str]] = {}
        for connection in self._definition.connections:
            if connection.control:
                onward.setdefault(connection.source_id, []).append(connection.target_id)
        reached: set[str] = set()
        left = [component.id for component in self._definition.components if component.type == START]
        while left:
            id_ = left.pop()
            if id_ not in reached:
                reached.add(id_)
                left += onward.get(id_, [])
        return reached

    def _ports(self, component: Component, type_: ComponentType, path: str) -> Iterator[Problem]:
        declared = {(port.category, port.route): port for port in type_.ports}
        for number, port in enumerate(component.ports):
            spec = declared.get((port.category, port.route))
            place = f"{path}.ports[{number}]"
            if spec is None:
                if not self._may_add(type_, port.category):
                    yield Problem(
                        type=P.UNKNOWN_PORT,
                        component_id=component.id,
                        path=place,
                        message=f"{component.type} has no {port.category} {port.route!r}",
                    )
            elif port.has_value and not fits(port.value, spec.value_type):
                message = f"{port.route!r} takes a value of type {spec.value_type}"
                yield Problem(type=P.TYPE_MISMATCH, component_id=component.id, path=f"{place}.value", message=message)
        settings = settings_of(component)
        for spec in type_.ports:
            known = spec.route in settings or (component.id, spec.route) in self._fed
            if spec.required and spec.category == DATA_INPUT and not known:
                message = f"{spec.route!r} has neither a value nor a connection"
                yield Problem(type=P.MISSING_PORT, component_id=component.id, path=f"{path}.ports", message=message)
        for route, message in type_.problems(settings):
            yield Problem(
                type=P.TYPE_MISMATCH,
                component_id=component.id,
                path=f"{path}.{_port_of(component, route)}",
                message=f"{route!r} {message}",
            )
        yield from self._expressions(component, type_, path)

    def _expressions(self, component: Component, type_: ComponentType, path: str) -> Iterator[Problem]:
        """Expressions that are none, or use names that nobody provides."""
        names = self._names(component, type_)
        for setting in type_.expressions(settings_of(component)):
            place = f"{path}.{_place_of(component, setting)}"
            try:
                expression = parse(setting.text)
            except ExpressionError as error:
                yield _of_expression(P.INVALID_EXPRESSION, component, place, error)
                continue
            for used in expression.names:
                if used.name not in names and not used.optional:
                    unknown = unknown_name(used.name, names, line=used.line, column=used.column)
                    yield _of_expression(P.UNKNOWN_NAME, component, place, unknown)
            if setting.decides and expression.never_boolean:
                yield _undecided(component, place)

    def _names(self, component: Component, type_: ComponentType) -> list[str]:
        """The names that a component's expressions may use: its data inputs, but for those that its type declares."""
        own = {port.route for port in component.ports if port.category == DATA_INPUT}
        fed = {route for id_, route in self._fed if id_ == component.id}
        declared = {port.route for port in type_.ports}
        return sorted((own | fed) - declared | {INPUTS})

    def _may_add(self, type_: ComponentType, category: str) -> bool:
        return type_.open_ports if category in (DATA_INPUT, DATA_OUTPUT) else type_.open_routes

    def _connection(self, connection: Connection, path: str) -> Iterator[Problem]:
        ends = (("source_id", connection.source_id), ("target_id", connection.target_id))
        dangling = [(name, id_) for name, id_ in ends if id_ not in self._components]
        for name, id_ in dangling:
            yield Problem(
                type=P.DANGLING_CONNECTION, component_id="", path=f"{path}.{name}", message=f"there is no component {id_!r}"
            )
        source, target = self._types.get(connection.source_id), self._types.get(connection.target_id)
        if dangling or source is None or target is None:
            return
        if connection.control:
            yield from self._control(connection, source, target, path)
        else:
            yield from self._data(connection, source, target, path)

    def _control(self, connection: Connection, source: ComponentType, target: ComponentType, path: str) -> Iterator[Problem]:
        if not connection.route:
            yield Problem(
                type=P.UNKNOWN_PORT,
                component_id=connection.source_id,
                path=f"{path}.route",
                message="control needs a route to fire on",
            )
        elif connection.route not in source.routes and not source.open_routes:
            message = f"{source.type} has no route {connection.route!r}"
            yield Problem(type=P.UNKNOWN_PORT, component_id=connection.source_id, path=f"{path}.route", message=message)
        takes_control = any(port.category == "flow_input" for port in target.ports)
        if connection.target_port != "flow_input" or not takes_control:
            message = f"{target.type} takes no control at {connection.target_port!r}"
            yield Problem(
                type=P.UNKNOWN_PORT, component_id=connection.target_id, path=f"{path}.target_port", message=message
            )

    def _data(self, connection: Connection, source: ComponentType, target: ComponentType, path: str) -> Iterator[Problem]:
        if not self._has(connection.source_id, source, DATA_OUTPUT, connection.source_route):
            message = f"{source.type} has no data output {connection.source_route!r}"
            yield Problem(
                type=P.UNKNOWN_PORT, component_id=connection.source_id, path=f"{path}.source_port", message=message
            )
        if not self._has(connection.target_id, target, DATA_INPUT, connection.target_route):
            message = f"{target.type} has no data input {connection.target_route!r}"
            yield Problem(
                type=P.UNKNOWN_PORT, component_id=connection.target_id, path=f"{path}.target_port", message=message
            )
        if connection.target_route in target.constants:
            message = f"the data input {connection.target_route!r} of {target.type} takes a value of its own, no connection"
            yield Problem(
                type=P.UNKNOWN_PORT, component_id=connection.target_id, path=f"{path}.target_port", message=message
            )
        if target.kind is ComponentKind.DATA and self._constant(connection.target_id):
            message = "a value of persistence `definition` is a constant and cannot be written"
            yield Problem(
                type=P.UNKNOWN_PORT, component_id=connection.target_id, path=f"{path}.target_port", message=message
            )

    def _has(self, id_: str, type_: ComponentType, category: str, route: str) -> bool:
        own = any(port.category == category and port.route == route for port in self._components[id_].ports)
        declared = any(port.category == category and port.route == route for port in type_.ports)
        return declared or (type_.open_ports and (own or bool(route)))

    def _constant(self, id_: str) -> bool:
        return bool(unwrap(settings_of(self._components[id_]).get("persistence", "definition")) == "definition")


def settings_of(component: Component) -> dict[str, Any]:
    """The values set on a component's data inputs, by name."""
    return {port.route: port.value for port in component.ports if port.category == DATA_INPUT and port.has_value}


def _place_of(component: Component, setting: ExpressionSetting) -> str:
    """Where in its component an expression is."""
    for number, port in enumerate(component.ports):
        if port.category == DATA_INPUT and port.route == setting.input and port.has_value:
            kind = type_of(port.value)
            return f"ports[{number}].value{f'.{kind}' if kind else ''}{setting.within}"
    return "ports"


def _port_of(component: Component, route: str) -> str:
    """Where in its component the value of a data input is; its ports, where it has none."""
    for number, port in enumerate(component.ports):
        if port.category == DATA_INPUT and port.route == route and port.has_value:
            return f"ports[{number}].value"
    return "ports"


def _of_expression(type_: P, component: Component, place: str, error: ExpressionError) -> Problem:
    return Problem(
        type=type_,
        component_id=component.id,
        path=place,
        message=error.message,
        line=error.line,
        column=error.column,
    )


def _undecided(component: Component, place: str) -> Problem:
    return Problem(
        type=P.TYPE_MISMATCH,
        component_id=component.id,
        path=place,
        message="is never True or False, so the switch fails when it comes to this case",
        severity=Severity.WARNING,
    )


def _policy(component: Component, path: str) -> Iterator[Problem]:
    policy, retry = component.policy, component.policy.retry
    place = f"{path}.policy"
    if policy.timeout is not None and policy.timeout <= 0:
        yield Problem(
            type=P.INVALID_POLICY, component_id=component.id, path=f"{place}.timeout", message="must be more than 0"
        )
    for name, value, most in (
        ("maximum_attempts", retry.maximum_attempts, 100),
        ("backoff_coefficient", retry.backoff_coefficient, 10),
    ):
        if not 1 <= value <= most:
            yield Problem(
                type=P.INVALID_POLICY,
                component_id=component.id,
                path=f"{place}.retry.{name}",
                message=f"must be from 1 to {most}",
            )
