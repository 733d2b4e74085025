"""What steps read and write of the values that executions of a session share, and of the execution's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from blobhub_server.workflow.components.contract import ComponentError
from blobhub_server.workflow.components.operations import ADD, SET, operate, require_bounds
from blobhub_server.workflow.definitions.graph import Graph, Node, Write
from blobhub_server.workflow.interpreter.port_values import Evaluated, evaluate_again
from blobhub_server.workflow.interpreter.records import RunStep
from blobhub_server.workflow.interpreter.size import MAX_VALUE_BYTES
from blobhub_server.workflow.values import are_same

_NUMBER_BYTES = 200
"""What a number takes in memory, in a value object or by itself."""
MAX_STEP_BYTES = 4 << 20
"""How much of session objects one step may read, or change in place, as JSON."""


@dataclass(frozen=True, slots=True)
class Unread:
    """Stands for a session object that is there and was not read for a turn, because it is large and no next step's."""


def are_unread(aliases: Iterable[str], session: Mapping[str, Any]) -> bool:
    """Whether one of some objects was not read for this turn."""
    return any(type(session.get(alias)) is Unread for alias in aliases)


def beyond_reading(aliases: Iterable[str]) -> ComponentError:
    """The error of a step that needs more of session objects than it may read."""
    named = sorted(aliases)
    names = ", ".join(map(repr, named[:5])) + (" and others" if len(named) > 5 else "")
    message = f"the session objects {names} have more than {MAX_STEP_BYTES} bytes together, which is what a step may read"
    return ComponentError(message, reason="SESSION_READ_LIMIT", retryable=False)


def reread(graph: Graph, command: RunStep, session: Mapping[str, Any]) -> dict[str, Any]:
    """A step's inputs with those of the session objects that it reads whenever it is run as they are now.

    Raises ComponentError where a port that is evaluated has no value on them.
    """
    node, fresh = graph.components[command.component_id], dict(command.inputs)
    evaluated = command.evaluated or Evaluated()
    pending = {name: None for name in evaluated.inputs if node.computed[name].reads_session}
    for source in node.reread_sources:
        fresh.pop(source.input, None)
        pending.pop(source.input, None)
        if source.alias in session:
            fresh[source.input] = session[source.alias]
        elif source.component_id in graph.constants:
            fresh[source.input] = graph.constants[source.component_id]
        elif source.input in node.settings:
            fresh[source.input] = node.settings[source.input]
        elif source.input in node.computed:
            pending[source.input] = None
    return {**fresh, **evaluate_again(graph, node, evaluated, session, pending)} if pending else fresh


def have_changed(aliases: Iterable[str], before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether one of some objects is another now, has come or has gone."""
    return any((alias in before) != (alias in now) or not are_same(before.get(alias), now.get(alias)) for alias in aliases)


def writes_of(node: Node, outputs: Mapping[str, Any], persistence: str) -> Iterator[tuple[Write, Any]]:
    """The values of a persistence that outputs are written to, in order, each with what is written."""
    for route, value in outputs.items():
        for write in node.writes.get(route, ()):
            if write.persistence == persistence:
                yield write, value


def apply_writes(node: Node, outputs: Mapping[str, Any], persistence: str, there: Mapping[str, Any]) -> dict[str, Any]:
    """What outputs make of the values of a persistence that are there; those that they write, by alias.

    Raises ComponentError where an operation cannot be applied. A log has no such outputs, so replaying one never does.
    """
    made: dict[str, Any] = {}
    for write, value in writes_of(node, outputs, persistence):
        made[write.alias] = operate(write.operation, made.get(write.alias, there.get(write.alias, write.initial)), value)
    return made


def made_bytes(operation: str, current: int, given: int) -> int:
    """What an operation makes takes in memory, at most and about, by what its operands take."""
    if operation == SET:
        return given
    return _NUMBER_BYTES if operation == ADD else min(current + given, MAX_VALUE_BYTES)


def changed_in_place(node: Node, outputs: Mapping[str, Any], persistence: str) -> set[str]:
    """The aliases of the values that become something that depends on what they were."""
    return {write.alias for write, _ in writes_of(node, outputs, persistence) if write.operation != SET}


def require_writable(node: Node, outputs: Mapping[str, Any], persistence: str, there: Mapping[str, Any]) -> int:
    """How much work it is to write outputs. Raises ComponentError where they cannot be, or beyond the bounds of a value."""
    changed = changed_in_place(node, outputs, persistence)
    if not changed:
        return 0
    made = apply_writes(node, outputs, persistence, there)
    return sum(require_bounds(alias, made[alias]) for alias in changed)
