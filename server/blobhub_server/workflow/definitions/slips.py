"""What is probably a slip in a definition that can be run: the warnings of its check."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from blobhub_server.workflow.code.missing import missing_uses
from blobhub_server.workflow.components.contract import QUIET_ROUTES, TRIED_AGAIN, ComponentKind
from blobhub_server.workflow.components.contract import Component as ComponentType
from blobhub_server.workflow.components.data import persistence_of
from blobhub_server.workflow.definitions.document import (
    CATEGORIES,
    DATA_OUTPUT,
    NO_POLICY,
    VERSION,
    Component,
    Connection,
    Problem,
    Retry,
    Severity,
)
from blobhub_server.workflow.definitions.document import ProblemType as P
from blobhub_server.workflow.definitions.json_document import in_path
from blobhub_server.workflow.definitions.lookup import Lookup, places_of
from blobhub_server.workflow.definitions.references import References
from blobhub_server.workflow.values import are_same, unwrap

_PLACEHOLDER = re.compile(r"\{\{\s*(?:input|values|session|steps|error|item|index)\b")


def slips(lookup: Lookup, references: References) -> Iterator[Problem]:
    """Everything that deserves a warning; `references` have been resolved."""
    version = lookup.definition.version
    if version and version != VERSION:
        message = f"{version[:60]!r} is not known here; the document is read as one of version {VERSION}"
        yield _warning(P.UNKNOWN_VERSION, "", "version", message)
    reached = lookup.reachable()
    for number, component in enumerate(lookup.definition.components):
        type_ = lookup.types[component.id]
        if type_ is None:
            continue
        path = f"components[{number}]"
        if type_.kind is not ComponentKind.DATA and component.id not in reached:
            yield _warning(P.UNREACHABLE_COMPONENT, component.id, path, "control never reaches it")
        yield from _of_component(component, type_, path)
        yield from _routes(lookup, component, type_, path)
        yield from _scripts(lookup, component, type_, path)
        yield from _settings(lookup, component, type_, path)
        yield from _port_values(lookup, component, type_, path)
        if type_.kind is ComponentKind.DATA and component.id not in references.used and not _used(lookup, component):
            message = "nothing is connected to this value, and no expression reads it"
            yield _warning(P.UNUSED_VALUE, component.id, path, message)
    yield from _outputs(lookup)
    yield from _inputs(lookup)
    yield from _repeated(lookup)
    yield from _beginnings(lookup)


def _of_component(component: Component, type_: ComponentType, path: str) -> Iterator[Problem]:
    if component.category and component.category != type_.category:
        message = f"is not the group of {component.type}, which is `{type_.category}`"
        yield _warning(P.CATEGORY_MISMATCH, component.id, f"{path}.category", message)
    if component.policy != NO_POLICY and type_.kind not in TRIED_AGAIN | {ComponentKind.SCOPE}:
        message = f"has no effect: {component.type} is evaluated in place, once, and does not wait for anything outside"
        yield _warning(P.POLICY_WITHOUT_EFFECT, component.id, f"{path}.policy", message)
    elif component.policy != NO_POLICY:
        yield from _retry(component, f"{path}.policy.retry")
    yield from _ports(component, path)


def _ports(component: Component, path: str) -> Iterator[Problem]:
    """Ports that are there already: whoever reads the document looks at one of them, and may look at the wrong one."""
    first: dict[tuple[str, str], int] = {}
    with_value: set[tuple[str, str]] = set()
    for number, port in enumerate(component.ports):
        key, place = (port.category, port.route), f"{path}.ports[{number}]"
        other = first.setdefault(key, number)
        if port.has_value and key in with_value:
            message = f"{port.route!r} has a value more than once; the last one holds"
            yield _warning(P.SEVERAL_SOURCES, component.id, place, message)
        elif other != number:
            message = f"the {port.category} {port.route[:60]!r} is declared already, as ports[{other}]"
            yield _warning(P.REPEATED_PORT, component.id, place, message)
        if port.has_value:
            with_value.add(key)


def _retry(component: Component, path: str) -> Iterator[Problem]:
    """What a retry says and does not do."""
    retry = component.policy.retry
    if retry.maximum_attempts == 1 and retry != Retry():
        message = "has no effect: there is one attempt; `maximum_attempts` says how many there may be"
        yield _warning(P.POLICY_WITHOUT_EFFECT, component.id, path, message)
    elif retry.maximum_interval < retry.initial_interval:
        first, longest = f"{retry.initial_interval:g}s", f"{retry.maximum_interval:g}s"
        message = f"is shorter than the first wait, of {first}, so every wait is {longest}"
        yield _warning(P.POLICY_WITHOUT_EFFECT, component.id, f"{path}.maximum_interval", message)


def _routes(lookup: Lookup, component: Component, type_: ComponentType, path: str) -> Iterator[Problem]:
    """Routes that the component may take and no connection carries: the execution fails when it comes to one."""
    carried, places, told = lookup.carried[component.id], places_of(component), set()
    for taken in type_.routes_taken(lookup.settings[component.id]):
        if taken.route in QUIET_ROUTES or taken.route == "finally" or taken.route in carried or taken.route in told:
            continue
        given = {*places, *lookup.fed[component.id], *lookup.computed[component.id]}
        if taken.with_input and taken.input not in given:
            continue
        told.add(taken.route)
        place = f"{path}.{places[taken.input]}{taken.within}" if taken.input in places else path
        message = f"no connection carries the route {taken.route[:60]!r}: whoever takes it leads nowhere"
        yield _warning(P.ROUTE_LEADS_NOWHERE, component.id, place, message, line=taken.line, column=taken.column)


def _scripts(lookup: Lookup, component: Component, type_: ComponentType, path: str) -> Iterator[Problem]:
    """What a script will ask of its sandbox in vain."""
    places = places_of(component)
    for script in type_.scripts(lookup.settings[component.id]):
        place = f"{path}.{places.get(script.input, 'ports')}"
        for use in missing_uses(script.text):
            yield _warning(P.NOT_IN_SANDBOX, component.id, place, use.message, line=use.line, column=use.column)


def _settings(lookup: Lookup, component: Component, type_: ComponentType, path: str) -> Iterator[Problem]:
    """What a component type finds in the values that are set on it."""
    places = places_of(component)
    for slip in type_.slips(lookup.settings[component.id]):
        place = f"{path}.{places.get(slip.input, 'ports')}{slip.within}"
        if slip.unknown_key is None:
            yield _warning(P.NEVER_TAKEN, component.id, place, slip.message)
        else:
            yield _warning(P.UNKNOWN_KEY, component.id, f"{place}{in_path(slip.unknown_key)}", slip.message)


def _port_values(lookup: Lookup, component: Component, type_: ComponentType, path: str) -> Iterator[Problem]:
    """Expressions and templates in ports that a connection leads to as well, and values that only look like them."""
    places = places_of(component)
    for name in sorted(lookup.computed[component.id].keys() & lookup.fed[component.id]):
        message = f"a connection leads to {name[:60]!r} too: this is evaluated only while that has brought no value"
        yield _warning(P.SEVERAL_SOURCES, component.id, f"{path}.{places[name]}", message)
    settings = lookup.settings[component.id]
    code = {setting.input for setting in type_.expressions(settings)} | {script.input for script in type_.scripts(settings)}
    for name, value in settings.items():
        if name not in code and (message := _almost_computed(value)):
            yield _warning(P.TYPE_MISMATCH, component.id, f"{path}.{places[name]}", message)


def _almost_computed(value: Any) -> str:
    """Why a value that reads like an expression or a template is none, in words; empty for any other."""
    text = unwrap(value)
    if isinstance(text, str) and _PLACEHOLDER.search(text):
        return 'is a plain text, in which nothing is filled in; a template is `{"type": "template", "template": …}`'
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in ("expression", "template") or kind not in value:
        return ""
    return f"is plain JSON, and not evaluated: of {kind}s there are `type` and `{kind}`, which is a text, and no other key"


def _used(lookup: Lookup, component: Component) -> bool:
    """Whether somebody reads a value, or it is written for whoever looks into the session."""
    if any(not connection.control for connection in lookup.outgoing.get(component.id, ())):
        return True
    persistence = persistence_of(lookup.settings[component.id])
    return bool(persistence == "session" and lookup.incoming.get(component.id))


def _outputs(lookup: Lookup) -> Iterator[Problem]:
    """Data connections from outputs that nobody sets."""
    known: dict[str, frozenset[str] | None] = {}
    for number, connection in enumerate(lookup.definition.connections):
        id_ = connection.source_id
        type_ = lookup.types.get(id_)
        mistaken = connection.source_port in CATEGORIES and connection.source_port != DATA_OUTPUT
        if connection.control or mistaken or type_ is None:
            continue
        if not lookup.has_port(id_, type_, DATA_OUTPUT, connection.source_route):
            continue
        if id_ not in known:
            known[id_] = type_.outputs_set(lookup.settings[id_])
        outputs = known[id_]
        if outputs is not None and connection.source_route not in outputs:
            path = f"connections[{number}].{_port_field(connection)}"
            message = f"{id_[:60]!r} never sets the output {connection.source_route[:60]!r}"
            if connection.source_route == "error" and type_.may_fail_by_route:
                if "failure" in lookup.carried[id_]:
                    continue
                message += ": no connection carries its route `failure`"
            yield _warning(P.UNSET_OUTPUT, id_, path, message)


def _port_field(connection: Connection) -> str:
    return "route" if connection.source_port == DATA_OUTPUT else "source_port"


def _inputs(lookup: Lookup) -> Iterator[Problem]:
    """Data connections into an input that has one already. A value may be written by many."""
    first: dict[tuple[str, str], str] = {}
    for number, connection in enumerate(lookup.definition.connections):
        type_ = lookup.types.get(connection.target_id)
        if connection.control or type_ is None or type_.kind is ComponentKind.DATA:
            continue
        other = first.setdefault((connection.target_id, connection.target_route), connection.id)
        if other != connection.id:
            message = f"the connection {other[:60]!r} leads to this input too; the last one that has a value holds"
            path = f"connections[{number}].target_port"
            yield _warning(P.SEVERAL_SOURCES, connection.target_id, path, message)


def _repeated(lookup: Lookup) -> Iterator[Problem]:
    """Connections that are there already, under another id: what they lead to is entered, or written, once for each."""
    first: dict[tuple[bool, str, str, str], str] = {}
    for number, connection in enumerate(lookup.definition.connections):
        type_ = lookup.types.get(connection.target_id)
        if not connection.control and (type_ is None or type_.kind is not ComponentKind.DATA):
            continue  # Two into one input are told by `_inputs`.
        source, target = connection.source_id, connection.target_id
        route = connection.route if connection.control else connection.source_route
        other = first.setdefault((connection.control, source, route, target), connection.id)
        if other != connection.id:
            happens = "gets control" if connection.control else "is written"
            message = f"leads where {other[:60]!r} leads from the same route, so {target[:60]!r} {happens} once for each"
            yield _warning(P.REPEATED_CONNECTION, source, f"connections[{number}]", message)


def _beginnings(lookup: Lookup) -> Iterator[Problem]:
    """Components that stand for one value and give it different beginnings."""
    first: dict[tuple[str, str], tuple[str, Any]] = {}
    for number, component in enumerate(lookup.definition.components):
        type_, settings = lookup.types[component.id], lookup.settings[component.id]
        if type_ is None or type_.kind is not ComponentKind.DATA:
            continue
        persistence, alias = persistence_of(settings), unwrap(settings.get("alias"))
        own = next((item for item in enumerate(component.ports) if item[1].route == "value" and item[1].has_value), None)
        if persistence == "definition" or not isinstance(alias, str) or own is None:
            continue
        place, port = own
        other, begins = first.setdefault((str(persistence), alias), (component.id, port.value))
        if not are_same(begins, port.value):
            holds = "the last one holds" if persistence == "execution" else "each holds for what is connected to it"
            message = f"the value {alias[:60]!r} begins with something else at {other[:60]!r}; {holds}"
            yield _warning(P.SEVERAL_SOURCES, component.id, f"components[{number}].ports[{place}].value", message)


def _warning(type_: P, component_id: str, path: str, message: str, *, line: int = 0, column: int = 0) -> Problem:
    return Problem(
        type=type_,
        component_id=component_id,
        path=path,
        message=message,
        severity=Severity.WARNING,
        line=line,
        column=column,
    )
