"""A compiled definition: everything that the interpreter looks up is computed beforehand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from blobhub_server.workflow.components.contract import EXECUTE, ComponentKind, EffectComponent
from blobhub_server.workflow.components.contract import Component as ComponentType
from blobhub_server.workflow.components.data import persistence_of
from blobhub_server.workflow.components.operations import SET, initial
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.definitions.document import (
    DATA_INPUT,
    DATA_OUTPUT,
    Component,
    Connection,
    Definition,
    Policy,
)
from blobhub_server.workflow.definitions.joins import joins_first
from blobhub_server.workflow.definitions.lookup import START, Lookup, settings_of
from blobhub_server.workflow.definitions.references import (
    INPUT,
    SESSION,
    PortValue,
    Reference,
    References,
    port_value,
    references_of_expressions,
)
from blobhub_server.workflow.values import unwrap

END = "flow.end"
"""The type of component that ends a branch and gives the result."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where an input's value comes from: a component's output, or a value of a persistence under an alias."""

    input: str
    component_id: str
    route: str
    persistence: str | None
    alias: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where a token goes, and by which connection."""

    component_id: str
    connection_id: str


@dataclass(frozen=True, slots=True)
class Write:
    """A value that an output is written to, and by which operation. Where there is none, that is applied to `initial`."""

    persistence: str
    alias: str
    operation: str
    initial: Any


@dataclass(frozen=True, slots=True)
class Node:
    """A component, with everything about it that running needs.

    `settings` are the values set on its data inputs, `computed` those that are evaluated when it gets control, `sources` the
    connections into them, `references` what the expressions in its settings refer to beside its inputs. `control` has the
    targets by route, `incoming` the control connections into it, `writes` the values written by each of its outputs,
    `session_reads` the aliases of session objects among its sources and references, `session_changes` those that its outputs
    change in place, `session_needs` both. `reread` are the aliases that are read whenever it is run, because it writes such
    objects too and can be run again, and `reread_sources` those of its sources that they come by. `late_mark` is the bit
    that marks tokens which are late for this join; 0 for what is no join of mode `first`. `scope_path` has the
    scopes that it is inside, outermost first.
    """

    id: str
    type: str
    name: str
    kind: ComponentKind
    implementation: ComponentType
    policy: Policy
    settings: Mapping[str, Any]
    computed: Mapping[str, PortValue]
    required: tuple[str, ...]
    sources: tuple[Source, ...]
    references: tuple[Reference, ...]
    control: Mapping[str, tuple[Target, ...]]
    incoming: tuple[str, ...]
    writes: Mapping[str, tuple[Write, ...]]
    session_reads: tuple[str, ...]
    session_changes: frozenset[str]
    session_needs: frozenset[str]
    reread: tuple[str, ...]
    reread_sources: tuple[Source, ...]
    late_mark: int
    scope_path: tuple[str, ...]

    @property
    def all_references(self) -> Iterator[Reference]:
        """What its expressions and those of its ports refer to."""
        yield from self.references
        for value in self.computed.values():
            yield from value.references

    @property
    def session_writes(self) -> frozenset[str]:
        """The aliases of the session objects that it may write."""
        return frozenset(w.alias for writes in self.writes.values() for w in writes if w.persistence == "session")


@dataclass(frozen=True, slots=True)
class Graph:
    """A definition, ready to run."""

    components: Mapping[str, Node]
    start: str
    constants: Mapping[str, Any]
    """Own values of `data.value` components, by component id."""
    initial: Mapping[str, Any]
    """Own values of persistence `execution`, by alias."""
    input_aliases: frozenset[str]
    session_aliases: frozenset[str]
    session_reads: frozenset[str]
    """The aliases of session objects whose values are read, or changed in place; others are only set."""
    input_reads: frozenset[str]
    """The aliases of inputs that expressions read as they were given."""
    has_first_joins: bool
    has_tasks: bool
    """Whether any component waits for workers."""
    has_children: bool
    """Whether any component starts other executions."""

    @classmethod
    def compile(cls, definition: Definition, registry: ComponentRegistry) -> Graph:
        """Compile a definition in which `check` finds nothing wrong."""
        return _Compiler(definition, registry).graph()


class _Compiler:
    def __init__(self, definition: Definition, registry: ComponentRegistry) -> None:
        self._definition = definition
        self._lookup = Lookup(definition, registry)
        self._references = References(self._lookup)
        self._types: dict[str, ComponentType] = {}
        for id_, type_ in self._lookup.types.items():
            assert type_ is not None, "checked before"
            self._types[id_] = type_
        values = [c for c in definition.components if self._kind(c.id) is ComponentKind.DATA]
        self._values = {value.id: _value_of(value) for value in values}
        self._written = {value.id: self._write(value) for value in values}
        first_joins = [c.id for c in definition.components if self._kind(c.id) is ComponentKind.JOIN and joins_first(c)]
        self._late_marks = {id_: 1 << number for number, id_ in enumerate(first_joins)}

    def _kind(self, id_: str) -> ComponentKind:
        return self._types[id_].kind

    def graph(self) -> Graph:
        nodes = {c.id: self._node(c) for c in self._definition.components if c.id not in self._values}
        constants = {c.id: own for c in self._definition.components if (own := _own_value(c)) is not None}
        execution = {id_: alias for id_, (persistence, alias) in self._values.items() if persistence == "execution"}
        return Graph(
            components=nodes,
            start=next(c.id for c in self._definition.components if c.type == START),
            constants={id_: own[0] for id_, own in constants.items()},
            initial={alias: constants[id_][0] for id_, alias in execution.items() if id_ in constants},
            input_aliases=frozenset(execution.values()),
            session_aliases=frozenset(alias for persistence, alias in self._values.values() if persistence == "session"),
            session_reads=frozenset(alias for node in nodes.values() for alias in node.session_needs),
            input_reads=frozenset(r.key for node in nodes.values() for r in node.all_references if r.root == INPUT),
            has_first_joins=bool(self._late_marks),
            has_tasks=any(node.kind is ComponentKind.TASK for node in nodes.values()),
            has_children=any(node.type == EXECUTE for node in nodes.values()),
        )

    def _node(self, component: Component) -> Node:
        type_ = self._types[component.id]
        outgoing = self._lookup.outgoing.get(component.id, [])
        incoming = self._lookup.incoming.get(component.id, [])
        sources = tuple(self._source(c) for c in incoming if not c.control)
        writes = self._writes(outgoing)
        computed = {
            name: port_value(self._references, value, component.id)
            for name, value in self._lookup.computed[component.id].items()
        }
        references = tuple(dict.fromkeys(references_of_expressions(self._lookup, self._references, component, type_)))
        of_ports = [r.key for value in computed.values() for r in value.references if r.root == SESSION]
        of_sources = [source.alias for source in sources if source.persistence == "session"]
        session_reads = dict.fromkeys([*of_sources, *of_ports, *(r.key for r in references if r.root == SESSION)])
        session_changes = frozenset(_changed_of_session(writes))
        reread_sources = _session_sources(sources) if _is_run_again(type_, writes) else ()
        reread = [*(source.alias for source in reread_sources), *of_ports] if _is_run_again(type_, writes) else []
        return Node(
            id=component.id,
            type=component.type,
            name=component.name,
            kind=type_.kind,
            implementation=type_,
            policy=component.policy,
            settings=self._lookup.settings[component.id],
            computed=computed,
            required=tuple(p.route for p in type_.ports if p.required and p.category == DATA_INPUT),
            sources=sources,
            references=references,
            control=_control(outgoing),
            incoming=tuple(c.id for c in incoming if c.control),
            writes=writes,
            session_reads=tuple(session_reads),
            session_changes=session_changes,
            session_needs=session_changes.union(session_reads),
            reread=tuple(dict.fromkeys(reread)),
            reread_sources=reread_sources,
            late_mark=self._late_marks.get(component.id, 0),
            scope_path=self._lookup.scope_path(component.id),
        )

    def _source(self, connection: Connection) -> Source:
        persistence, alias = self._values.get(connection.source_id, (None, ""))
        return Source(
            input=connection.target_route,
            component_id=connection.source_id,
            route=connection.source_route,
            persistence=persistence,
            alias=alias,
        )

    def _writes(self, outgoing: list[Connection]) -> dict[str, tuple[Write, ...]]:
        made: dict[str, list[Write]] = defaultdict(list)
        for connection in outgoing:
            if not connection.control and connection.target_id in self._written:
                made[connection.source_route].append(self._written[connection.target_id])
        return {route: tuple(writes) for route, writes in made.items()}

    def _write(self, value: Component) -> Write:
        persistence, alias = self._values[value.id]
        operation = str(unwrap(settings_of(value).get("operation", SET)))
        own = _own_value(value)
        return Write(
            persistence=persistence,
            alias=alias,
            operation=operation,
            initial=initial(operation) if own is None else own[0],
        )


def _changed_of_session(writes: Mapping[str, Iterable[Write]]) -> Iterator[str]:
    """The session objects that a component's outputs make of what they were."""
    for made in writes.values():
        yield from (write.alias for write in made if write.persistence == "session" and write.operation != SET)


def _is_run_again(type_: ComponentType, writes: Mapping[str, tuple[Write, ...]]) -> bool:
    """Whether a component is run again where another execution has changed the session objects that it has read."""
    atomic = isinstance(type_, EffectComponent) and type_.repeatable
    return atomic and any(write.persistence == "session" for made in writes.values() for write in made)


def _session_sources(sources: tuple[Source, ...]) -> tuple[Source, ...]:
    """The sources that are session objects. Of several connections into one input the last that has a value counts."""
    last = {source.input: source for source in sources}
    return tuple(source for source in last.values() if source.persistence == "session")


def _control(outgoing: list[Connection]) -> dict[str, tuple[Target, ...]]:
    made: dict[str, list[Target]] = defaultdict(list)
    for connection in outgoing:
        if connection.control:
            made[connection.route].append(Target(connection.target_id, connection.id))
    return {route: tuple(targets) for route, targets in made.items()}


def _value_of(component: Component) -> tuple[str, str]:
    """Persistence and alias of a `data.value` component."""
    settings = settings_of(component)
    return str(persistence_of(settings)), str(unwrap(settings.get("alias", "")))


def _own_value(component: Component) -> tuple[Any] | None:
    """The value set on a `data.value` component, if any, in a tuple: null is a value."""
    for port in component.ports:
        if port.route == "value" and port.has_value and port.category in (DATA_OUTPUT, DATA_INPUT):
            return (port.value,)
    return None
