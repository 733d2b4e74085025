"""Finds everything that is wrong with a definition, at once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from types import MappingProxyType

from blobhub_server.blobtypes.expressions import is_computed
from blobhub_server.workflow.code.contract import ScriptFlaw
from blobhub_server.workflow.components.contract import Component as ComponentType
from blobhub_server.workflow.components.contract import ComponentKind
from blobhub_server.workflow.components.data import persistence_of
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.definitions.document import (
    CATEGORIES,
    DATA_INPUT,
    DATA_OUTPUT,
    FLOW_INPUT,
    FLOW_OUTPUT,
    Component,
    Connection,
    Definition,
    Problem,
    Severity,
)
from blobhub_server.workflow.definitions.document import ProblemType as P
from blobhub_server.workflow.definitions.expressions import ExpressionCheck
from blobhub_server.workflow.definitions.joins import join_problems
from blobhub_server.workflow.definitions.lookup import START, Lookup, declared_ports, may_add, places_of, settings_of
from blobhub_server.workflow.definitions.references import References
from blobhub_server.workflow.definitions.scopes import scope_problems
from blobhub_server.workflow.definitions.slips import slips
from blobhub_server.workflow.values import fits

MAX_SCRIPTS = 500
MAX_SCRIPT_CHARACTERS = 128 << 10
MAX_SCRIPTS_CHARACTERS = 512 << 10
"""Looking at a script takes a microsecond a character."""
MAX_PROBLEMS = 20_000
"""How many are found at most, the errors before the warnings: one text can use a name that is not there a thousand times."""

MAX_ATTEMPTS = 100
MAX_COEFFICIENT = 10

_NUMBERED = re.compile(r"(components|connections)\[(\d+)\]")


def check(
    definition: Definition, registry: ComponentRegistry, flaws: Mapping[str, ScriptFlaw] = MappingProxyType({})
) -> list[Problem]:
    """Every problem, in document order. A definition in which none is an error can be run.

    `flaws` are those of its scripts that the sandbox does not read, by their text (`scripts_of`).
    """
    lookup = Lookup(definition, registry)
    references = References(lookup)
    errors = _Check(lookup, flaws, ExpressionCheck(lookup, references)).problems()
    found = _bounded(chain(definition.warnings, errors, scope_problems(lookup), join_problems(lookup)))
    # Slips are warnings, so they come last and are not looked for where nothing more is told. By then all is resolved.
    found += islice(slips(lookup, references), MAX_PROBLEMS - len(found))
    return sorted(found, key=_place)


def _bounded(problems: Iterable[Problem]) -> list[Problem]:
    """At most MAX_PROBLEMS of them, the errors first: a warning that took an error's place would make its definition run."""
    errors: list[Problem] = []
    warnings: list[Problem] = []
    for problem in problems:
        if problem.severity is Severity.WARNING:
            warnings += [problem] if len(warnings) < MAX_PROBLEMS else []
            continue
        errors.append(problem)
        if len(errors) == MAX_PROBLEMS:
            break
    return [*errors, *warnings[: MAX_PROBLEMS - len(errors)]]


def scripts_of(definition: Definition, registry: ComponentRegistry) -> list[str]:
    """The texts of all scripts in a definition, each once; none where there are more than there may be."""
    types = {component.type: registry.get(component.type) for component in definition.components}
    found: dict[str, None] = {}
    for component in definition.components:
        if type_ := types[component.type]:
            found |= dict.fromkeys(script.text for script in type_.scripts(settings_of(component)))
    beyond = len(found) > MAX_SCRIPTS or sum(map(len, found)) > MAX_SCRIPTS_CHARACTERS
    return [] if beyond else [text for text in found if len(text) <= MAX_SCRIPT_CHARACTERS]


def _place(problem: Problem) -> tuple[int, int]:
    """Where a problem stands among the others."""
    found = _NUMBERED.match(problem.path)
    return (-1, 0) if found is None else (int(found[1] == "connections"), int(found[2]))


class _Check:
    """The errors of a definition, and those warnings that come with reading its expressions."""

    def __init__(self, lookup: Lookup, flaws: Mapping[str, ScriptFlaw], expressions: ExpressionCheck) -> None:
        self._lookup = lookup
        self._definition = lookup.definition
        self._flaws = flaws
        self._expressions = expressions
        self._scripts: dict[str, None] = {}

    def problems(self) -> Iterator[Problem]:
        yield from self._starts()
        yield from self._duplicates()
        for number, component in enumerate(self._definition.components):
            path = f"components[{number}]"
            type_ = self._lookup.types[component.id]
            if type_ is None:
                message = f"no component type {component.type!r} is installed"
                yield _error(P.UNKNOWN_COMPONENT_TYPE, component.id, f"{path}.type", message)
                continue
            if component.type in self._lookup.lacking:
                yield _error(P.UNKNOWN_COMPONENT_TYPE, component.id, f"{path}.type", _lack_message(type_))
            yield from self._ports(component, type_, path)
            yield from self._values(component, type_, path)
            yield from _policy(component, path)
        for number, connection in enumerate(self._definition.connections):
            yield from self._connection(connection, f"connections[{number}]")
        yield from self._totals()

    def _starts(self) -> Iterator[Problem]:
        starts = [component.id for component in self._definition.components if component.type == START]
        if not starts:
            yield _error(P.NO_START, "", "components", f"there is no component of type {START}")
        for id_ in starts[1:]:
            yield _error(P.SEVERAL_STARTS, id_, "components", f"there is more than one component of type {START}")

    def _duplicates(self) -> Iterator[Problem]:
        ids: dict[str, Iterable[str]] = {
            "components": [component.id for component in self._definition.components],
            "connections": [connection.id for connection in self._definition.connections],
        }
        for name, given in ids.items():
            for id_, count in Counter(given).items():
                if count > 1:
                    owner = id_ if name == "components" else ""
                    yield _error(P.DUPLICATE_ID, owner, name, f"{count} {name} have the id {id_!r}")

    def _ports(self, component: Component, type_: ComponentType, path: str) -> Iterator[Problem]:
        specs = {(port.category, port.route): port for port in type_.ports}
        for number, port in enumerate(component.ports):
            spec = specs.get((port.category, port.route))
            place = f"{path}.ports[{number}]"
            if spec is None and not may_add(type_, port.category):
                message = f"{component.type} has no {port.category} {port.route!r}"
                yield _error(P.UNKNOWN_PORT, component.id, place, message)
            elif spec is not None and port.has_value and not (is_computed(port.value) or fits(port.value, spec.value_type)):
                message = f"{port.route!r} takes a value of type {spec.value_type}"
                yield _error(P.TYPE_MISMATCH, component.id, f"{place}.value", message)
        lookup = self._lookup
        known = {*lookup.settings[component.id], *lookup.computed[component.id], *lookup.fed[component.id]}
        for spec in type_.ports:
            if spec.required and spec.category == DATA_INPUT and spec.route not in known:
                message = f"{spec.route!r} has neither a value nor a connection"
                yield _error(P.MISSING_PORT, component.id, f"{path}.ports", message)
        for names in type_.alternatives:
            if known.isdisjoint(names):
                message = f"one of {' and '.join(map(repr, names))} needs a value or a connection"
                yield _error(P.MISSING_PORT, component.id, f"{path}.ports", message)

    def _values(self, component: Component, type_: ComponentType, path: str) -> Iterator[Problem]:
        """Values that their component does not take, and what cannot be read of expressions and scripts."""
        settings, places = self._lookup.settings[component.id], places_of(component)
        unfit = {port.route for port in type_.ports if not fits(settings.get(port.route), port.value_type)}
        for route, message in type_.problems(settings):
            if route not in settings or route not in unfit:
                place = f"{path}.{places.get(route, 'ports')}"
                yield _error(P.TYPE_MISMATCH, component.id, place, f"{route!r} {message}")
        yield from self._expressions.problems(component, type_, path)
        for script in type_.scripts(settings):
            self._scripts[script.text] = None
            place = f"{path}.{places.get(script.input, 'ports')}"
            flaw = self._flaws.get(script.text)
            if len(script.text) > MAX_SCRIPT_CHARACTERS:
                message = f"must be at most {MAX_SCRIPT_CHARACTERS} characters, not {len(script.text)}"
                yield _error(P.INVALID_SCRIPT, component.id, place, message)
            elif flaw is not None:
                yield _error(P.INVALID_SCRIPT, component.id, place, flaw.message, line=flaw.line, column=flaw.column)

    def _totals(self) -> Iterator[Problem]:
        """More expressions or scripts than there may be. They are not read then."""
        yield from self._expressions.totals()
        characters = sum(map(len, self._scripts))
        if len(self._scripts) > MAX_SCRIPTS or characters > MAX_SCRIPTS_CHARACTERS:
            bound = f"{MAX_SCRIPTS} different scripts of {MAX_SCRIPTS_CHARACTERS} characters in all"
            message = f"must have at most {bound}, not {len(self._scripts)} of {characters}"
            yield _error(P.INVALID_DOCUMENT, "", "components", message)

    def _connection(self, connection: Connection, path: str) -> Iterator[Problem]:
        ends = (("source_id", connection.source_id), ("target_id", connection.target_id))
        dangling = [(name, id_) for name, id_ in ends if id_ not in self._lookup.components]
        for name, id_ in dangling:
            yield _error(P.DANGLING_CONNECTION, "", f"{path}.{name}", f"there is no component {id_!r}")
        source, target = self._lookup.types.get(connection.source_id), self._lookup.types.get(connection.target_id)
        if dangling or source is None or target is None:
            return
        if connection.control:
            yield from self._control(connection, source, target, path)
        else:
            yield from self._data(connection, source, target, path)

    def _control(self, connection: Connection, source: ComponentType, target: ComponentType, path: str) -> Iterator[Problem]:
        if not connection.route:
            message = "control needs a route to fire on"
            yield _error(P.UNKNOWN_PORT, connection.source_id, f"{path}.route", message)
        elif connection.route not in source.routes and not source.open_routes:
            message = f"{source.type} has no route {connection.route!r}"
            yield _error(P.UNKNOWN_PORT, connection.source_id, f"{path}.route", message)
        takes_control = any(category == FLOW_INPUT for category, _ in declared_ports(target))
        if connection.target_port != FLOW_INPUT or not takes_control:
            message = f"{target.type} takes no control at {connection.target_port!r}"
            yield _error(P.UNKNOWN_PORT, connection.target_id, f"{path}.target_port", message)

    def _data(self, connection: Connection, source: ComponentType, target: ComponentType, path: str) -> Iterator[Problem]:
        source_id, target_id = connection.source_id, connection.target_id
        if connection.source_port in CATEGORIES and connection.source_port != DATA_OUTPUT:
            message = f"nothing leaves by {connection.source_port!r}; control leaves by {FLOW_OUTPUT!r}"
            yield _error(P.UNKNOWN_PORT, source_id, f"{path}.source_port", message)
        elif not self._lookup.has_port(source_id, source, DATA_OUTPUT, connection.source_route):
            message = f"{source.type} has no data output {connection.source_route!r}"
            yield _error(P.UNKNOWN_PORT, source_id, f"{path}.source_port", message)
        if connection.target_port in CATEGORIES and connection.target_port != DATA_INPUT:
            message = f"{connection.target_port!r} takes no data, and only what leaves by {FLOW_OUTPUT!r} is control"
            yield _error(P.UNKNOWN_PORT, target_id, f"{path}.target_port", message)
        elif not self._lookup.has_port(target_id, target, DATA_INPUT, connection.target_route):
            message = f"{target.type} has no data input {connection.target_route!r}"
            yield _error(P.UNKNOWN_PORT, target_id, f"{path}.target_port", message)
        elif connection.target_route in target.constants:
            message = f"the data input {connection.target_route!r} of {target.type} takes a value of its own, no connection"
            yield _error(P.UNKNOWN_PORT, target_id, f"{path}.target_port", message)
        elif target.kind is ComponentKind.DATA and self._constant(target_id):
            message = "a value of persistence `definition` is a constant and cannot be written"
            yield _error(P.UNKNOWN_PORT, target_id, f"{path}.target_port", message)

    def _constant(self, id_: str) -> bool:
        return bool(persistence_of(self._lookup.settings[id_]) == "definition")


def _lack_message(type_: ComponentType) -> str:
    """That what a component needs is not there."""
    return f"{type_.type} needs {' and '.join(type_.needs.values())}; no blob type that is installed here offers that"


def _error(type_: P, component_id: str, path: str, message: str, *, line: int = 0, column: int = 0) -> Problem:
    return Problem(type=type_, component_id=component_id, path=path, message=message, line=line, column=column)


def _policy(component: Component, path: str) -> Iterator[Problem]:
    policy, retry = component.policy, component.policy.retry
    place = f"{path}.policy"
    if policy.timeout is not None and policy.timeout <= 0:
        yield _error(P.INVALID_POLICY, component.id, f"{place}.timeout", "must be more than 0")
    for name, value, most in (
        ("maximum_attempts", retry.maximum_attempts, MAX_ATTEMPTS),
        ("backoff_coefficient", retry.backoff_coefficient, MAX_COEFFICIENT),
    ):
        if not 1 <= value <= most:
            yield _error(P.INVALID_POLICY, component.id, f"{place}.retry.{name}", f"must be from 1 to {most}")
