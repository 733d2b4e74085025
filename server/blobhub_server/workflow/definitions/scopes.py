"""Finds what is wrong with a definition's scopes: what is inside of what, and what crosses their borders."""

from __future__ import annotations

from collections.abc import Iterator

from blobhub_server.workflow.components.contract import ComponentKind
from blobhub_server.workflow.components.scopes import ScopeComponent
from blobhub_server.workflow.definitions.document import Component, Connection, Problem
from blobhub_server.workflow.definitions.document import ProblemType as P
from blobhub_server.workflow.definitions.lookup import START, Lookup, leads_inside

MAX_DEPTH = 8
"""How many scopes may be within each other."""


def scope_problems(lookup: Lookup) -> Iterator[Problem]:
    """What is wrong with a definition's scopes."""
    if not any(component.parent_id or is_scope(lookup, component.id) for component in lookup.definition.components):
        return
    for number, component in enumerate(lookup.definition.components):
        path = f"components[{number}]"
        if component.parent_id:
            yield from _parent(lookup, component, f"{path}.parent_id")
        if is_scope(lookup, component.id) and "body" not in lookup.carried[component.id]:
            yield _problem(component.id, path, "no connection carries its route `body`, so nothing is inside")
    for number, connection in enumerate(lookup.definition.connections):
        if connection.source_id in lookup.components and connection.target_id in lookup.components:
            message = _control(lookup, connection) if connection.control else _data(lookup, connection)
            if message:
                yield _problem(connection.source_id, f"connections[{number}]", message)


def is_scope(lookup: Lookup, id_: str) -> bool:
    """Whether a component is a scope."""
    type_ = lookup.types.get(id_)
    return type_ is not None and type_.kind is ComponentKind.SCOPE


def _parent(lookup: Lookup, component: Component, place: str) -> Iterator[Problem]:
    parent = component.parent_id
    if parent not in lookup.components:
        yield _problem(component.id, place, f"there is no component {parent!r}")
    elif not is_scope(lookup, parent):
        yield _problem(component.id, place, f"{parent!r} is no scope: nothing can be inside of it")
    elif component.type == START:
        yield _problem(component.id, place, f"{START} is where the execution begins, so it is in no scope")
    else:
        path = lookup.scope_path(component.id)
        if component.id in path or (path and lookup.components[path[0]].parent_id):
            yield _problem(component.id, place, "it is inside of itself, or within scopes that are")
        elif len(path) > MAX_DEPTH:
            yield _problem(component.id, place, f"it is inside of {len(path)} scopes; {MAX_DEPTH} may be within each other")


def _control(lookup: Lookup, connection: Connection) -> str:
    """Why a connection of control cannot be: it crosses the border of a scope."""
    source, target = connection.source_id, connection.target_id
    there = lookup.components[target].parent_id
    if leads_inside(lookup, connection):
        return (
            "" if there == source else f"{connection.route!r} of {source!r} leads inside, and {target!r} is not inside of it"
        )
    here = lookup.components[source].parent_id
    if there == here:
        return ""
    if there == source:
        return f"{connection.route!r} of {source!r} leads outside, and {target!r} is inside of it"
    return f"it crosses the border of a scope: {source!r} is {_inside(here)}, and {target!r} {_inside(there)}"


def _data(lookup: Lookup, connection: Connection) -> str:
    """Why a connection of data cannot be: it leaves a scope, but for a value."""
    source, target = connection.source_id, connection.target_id
    if any(_kind(lookup, id_) in (ComponentKind.DATA, None) for id_ in (source, target)):
        return ""
    here, type_ = lookup.components[source].parent_id, lookup.types[source]
    if isinstance(type_, ScopeComponent) and connection.source_route in type_.given_inside:
        if source not in lookup.scope_path(target):
            return f"{source!r} gives {connection.source_route!r} inside alone, and {target!r} is not inside of it"
    elif here and here not in lookup.scope_path(target):
        return f"data leaves {here!r} only as its value, or into a `data.value`; {target!r} is not inside of it"
    return ""


def _kind(lookup: Lookup, id_: str) -> ComponentKind | None:
    type_ = lookup.types.get(id_)
    return None if type_ is None else type_.kind


def _inside(scope: str) -> str:
    return f"inside of {scope!r}" if scope else "inside of none"


def _problem(component_id: str, path: str, message: str) -> Problem:
    return Problem(type=P.INVALID_SCOPE, component_id=component_id, path=path, message=message)
