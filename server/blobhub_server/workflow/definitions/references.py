"""What expressions refer to beside the data inputs of their component: `input`, `values`, `session`, `steps`, `error` and,
in a scope whose body is run more than once, `item` and `index`.

References are written out, as `steps.fetch.body` or `values["unit-price"]`, so what an expression reads is known when its
definition is checked, and nothing else has to be kept for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from blobhub_server.blobtypes.expressions import Computed, InvalidSyntax, NameUse, listing, parse
from blobhub_server.workflow.components.contract import Component as ComponentType
from blobhub_server.workflow.components.contract import ComponentKind, ExpressionComponent
from blobhub_server.workflow.components.data import persistence_of
from blobhub_server.workflow.components.expressions import INPUTS
from blobhub_server.workflow.components.repeated import INDEX, ITEM
from blobhub_server.workflow.components.scopes import ScopeComponent
from blobhub_server.workflow.definitions.document import DATA_INPUT, DATA_OUTPUT, Component
from blobhub_server.workflow.definitions.lookup import Lookup
from blobhub_server.workflow.values import unwrap

INPUT, VALUES, SESSION, STEPS, ERROR = "input", "values", "session", "steps", "error"
OF_ROUNDS = (ITEM, INDEX)
"""Those that are of the round of a scope's body that a component is in, each the scope's output of that name."""
ROOTS = (INPUT, VALUES, SESSION, STEPS, ERROR, *OF_ROUNDS)
"""The names that references begin with. A data input of one of these names comes first where its component's own expression
sees it."""
_GIVEN_IN = {ITEM: "a `flow.each`", INDEX: "a `flow.each` or a `flow.loop`"}
_EXAMPLES = {INPUT: "input.name", VALUES: "values.price", SESSION: "session.visits", STEPS: "steps.fetch.body"}


@dataclass(frozen=True, slots=True)
class Reference:
    """Data of an execution: the `key` is an alias or, of `steps`, the id of a component, whose `output` is meant.

    That of `error` has no key: it is the output `error` of the component whose route `failure` led to the step. The key of
    one of OF_ROUNDS is the scope's. `own` is the id of the `data.value` whose own value holds where there is no other; empty
    where there is none.
    """

    root: str
    key: str
    output: str = ""
    own: str = ""

    @property
    def path(self) -> tuple[str, ...]:
        """How an expression writes it, name by name."""
        return (self.root,) if self.root in OF_ROUNDS else tuple(filter(None, (self.root, self.key, self.output)))


class References:
    """Resolves references in a definition. `used` has the ids of the `data.value` components that some of them read."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self.used: set[str] = set()
        self._values: dict[str, dict[str, list[Component]]] = {}
        for component in lookup.definition.components:
            settings = lookup.settings[component.id]
            alias = unwrap(settings.get("alias"))
            if _is_value(lookup.types[component.id]) and isinstance(alias, str) and alias:
                persistence = str(persistence_of(settings))
                self._values.setdefault(persistence, {}).setdefault(alias, []).append(component)

    def resolve(self, use: NameUse, component_id: str) -> Reference | str:
        """What a use of one of ROOTS in a component refers to; in words why it refers to nothing."""
        if use.name == ERROR:
            handles = component_id in self._handlers
            return Reference(root=ERROR, key="") if handles else "no route `failure` leads here, so there is no `error`"
        if use.name in OF_ROUNDS:
            return self._of_round(use.name, component_id)
        if not use.path or (use.name == STEPS and len(use.path) < 2):
            example = _EXAMPLES[use.name]
            return f"`{use.name}` is read by names that are written out, as in `{example}` or `{_subscripts(example)}`"
        if use.name == STEPS:
            return self._step(*use.path[:2])
        return self._value(use.name, use.path[0])

    @cached_property
    def _handlers(self) -> set[str]:
        """The components that control can come to after a route `failure`, or what a scope runs last."""
        connections = self._lookup.definition.connections
        return self._lookup.reachable({c.target_id for c in connections if c.control and c.route in ("failure", "finally")})

    def is_there(self, root: str, component_id: str) -> bool:
        """Whether one of ROOTS leads to something from a component."""
        return root not in OF_ROUNDS or isinstance(self._of_round(root, component_id), Reference)

    def _of_round(self, name: str, component_id: str) -> Reference | str:
        """What a name of the innermost scope that gives it refers to."""
        for scope in reversed(self._lookup.scope_path(component_id)):
            type_ = self._lookup.types.get(scope)
            if isinstance(type_, ScopeComponent) and name in type_.given_inside:
                return Reference(root=name, key=scope, output=name)
        return f"there is `{name}` inside of {_GIVEN_IN[name]} alone"

    def out_of_sight(self, reader: Component, reference: Reference) -> str:
        """Why a component does not see what is referred to; empty where it does."""
        if reference.root != STEPS:
            return ""
        key, type_, path = reference.key, self._lookup.types[reference.key], self._lookup.scope_path(reader.id)
        if isinstance(type_, ScopeComponent) and reference.output in type_.given_inside and key not in path:
            return f"`{key[:60]}` gives the output `{reference.output}` inside alone"
        inside = self._lookup.components[key].parent_id
        if not inside or inside in path:
            return ""
        return f"`{key[:60]}` is inside of the scope `{inside[:60]}`, and what is in there is not seen from here"

    def _step(self, id_: str, output: str) -> Reference | str:
        if id_ not in self._lookup.components:
            steps = (name for name, type_ in self._lookup.types.items() if not _is_value(type_))
            return f"there is no component `{id_[:60]}`; there {listing(steps)}"
        type_ = self._lookup.types[id_]
        if _is_value(type_):
            return f"`{id_[:60]}` is a `data.value`, which is no step: it is read by its alias, as in `values.price`"
        if type_ is not None:
            known = _outputs(self._lookup, id_, type_)
            if known is not None and output not in known:
                return f"`{id_[:60]}` never sets the output `{output[:60]}`; there {listing(known)}"
        return Reference(root=STEPS, key=id_, output=output)

    def _value(self, root: str, alias: str) -> Reference | str:
        persistences = {INPUT: ["execution"], VALUES: ["execution", "definition"], SESSION: ["session"]}[root]
        found = next((held for name in persistences if (held := self._held(name).get(alias))), None)
        if found is None:
            missing = f"there is no `data.value` of {_kinds(persistences)} with the alias `{alias[:60]}`"
            return f"{missing}; {self._others(root, alias)}"
        self.used.update(component.id for component in found)
        own = [component.id for component in found if _has_own_value(component)]
        return Reference(root=root, key=alias, own=own[-1] if own else "")

    def _held(self, persistence: str) -> dict[str, list[Component]]:
        return self._values.get(persistence, {})

    def _others(self, root: str, alias: str) -> str:
        """Where else there is something of an alias, else the aliases there are."""
        if root != SESSION and alias in self._held("session"):
            return f"it is one of the session: `session.{alias[:60]}`"
        if root == SESSION and alias in {**self._held("execution"), **self._held("definition")}:
            return f"there is one of the execution: `values.{alias[:60]}`"
        if root == INPUT and alias in self._held("definition"):
            return f"it is a constant: `values.{alias[:60]}`"
        known = {INPUT: ["execution"], VALUES: ["execution", "definition"], SESSION: ["session"]}[root]
        return f"there {listing(sorted(name for persistence in known for name in self._held(persistence)))}"


def _kinds(persistences: Iterable[str]) -> str:
    return "persistence " + " or ".join(f"`{name}`" for name in persistences)


def _subscripts(example: str) -> str:
    first, *rest = example.split(".")
    return first + "".join(f'["{name}"]' for name in rest)


def _is_value(type_: ComponentType | None) -> bool:
    return type_ is not None and type_.kind is ComponentKind.DATA


def _has_own_value(component: Component) -> bool:
    return any(p.route == "value" and p.has_value and p.category in (DATA_INPUT, DATA_OUTPUT) for p in component.ports)


def _outputs(lookup: Lookup, id_: str, type_: ComponentType) -> list[str] | None:
    """The data outputs that a component can set; None when it may be any."""
    declared = [port.route for port in type_.ports if port.category == DATA_OUTPUT]
    known = type_.outputs_set(lookup.settings[id_])
    if known is None:
        return None if type_.open_ports else declared
    return sorted({*known, *(["error"] if type_.may_fail_by_route else [])})


def input_names(lookup: Lookup, component: Component, type_: ComponentType) -> dict[str, None]:
    """The data inputs that a component's expressions see by name: all but those that its type declares."""
    own = {port.route for port in component.ports if port.category == DATA_INPUT}
    routes = {port.route for port in type_.ports if port.category == DATA_INPUT}
    names = dict.fromkeys(sorted((own | lookup.fed[component.id]) - routes | {INPUTS}))
    return names | dict.fromkeys(type_.own_names if isinstance(type_, ScopeComponent) else ())


def roots_seen(type_: ComponentType) -> tuple[str, ...]:
    """Those of ROOTS that the expressions in a component's settings see. Those of scopes are looked at when a round ends,
    before which no session objects are read for them."""
    if isinstance(type_, ScopeComponent):
        return tuple(root for root in ROOTS if root != SESSION)
    return ROOTS if isinstance(type_, ExpressionComponent) else ()


def not_there(name: str) -> str:
    """Why a name is not there that is elsewhere; empty for any other."""
    if name == SESSION:
        return "`session` is not seen here: a data input that is an expression brings its value, as of when control came"
    return ""


@dataclass(frozen=True, slots=True)
class PortValue:
    """The value of a port that is an expression or a template, and what it refers to.

    `passed` is what it refers to where it is nothing but that, so that its value is that one and no other.
    """

    computed: Computed
    references: tuple[Reference, ...]
    passed: Reference | None

    @property
    def reads_session(self) -> bool:
        """Whether it refers to session objects."""
        return any(reference.root == SESSION for reference in self.references)


def port_value(references: References, computed: Computed, component_id: str) -> PortValue:
    """A computed value with its references; those that refer to nothing are left out."""
    resolved = (references.resolve(use, component_id) for use in computed.names() if use.name in ROOTS)
    found = tuple(dict.fromkeys(reference for reference in resolved if isinstance(reference, Reference)))
    alone = len(found) == 1 and not next(computed.flaws(), None) and computed.path == found[0].path
    return PortValue(computed=computed, references=found, passed=found[0] if alone else None)


def references_of_expressions(
    lookup: Lookup, references: References, component: Component, type_: ComponentType
) -> Iterator[Reference]:
    """What the expressions in a component's settings refer to beside its data inputs."""
    roots = roots_seen(type_)
    names = input_names(lookup, component, type_) if roots else {}
    for setting in type_.expressions(lookup.settings[component.id]):
        for use in _uses(setting.text):
            if use.name not in roots or use.name in names:
                continue
            if isinstance(found := references.resolve(use, component.id), Reference):
                yield found


def _uses(text: Any) -> Iterable[NameUse]:
    # To read one takes longer than to see that there is none of the names in it.
    if not any(root in text for root in ROOTS):
        return ()
    try:
        return parse(text).names
    except InvalidSyntax:
        return ()
