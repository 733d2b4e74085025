"""An execution's state, and the fold that makes it: the only place where it changes.

State is what the records say, no more: folding the log gives the state that the execution had when it was written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from blobhub_server.workflow.components.contract import Kind
from blobhub_server.workflow.interpreter.graph import Graph, Node
from blobhub_server.workflow.interpreter.records import Record

TERMINAL = frozenset({"completed", "failed", "stopped"})


@dataclass(slots=True)
class Step:
    """An activation of a component that has not ended. `until` is the unix time it waits for."""

    component_id: str
    attempt: int
    inputs: dict[str, Any]
    until: float | None = None


@dataclass(slots=True)
class ExecutionState:
    """Where an execution is.

    `ready` holds the components that have a token and have not been entered, in order. `arrived` counts the tokens that
    wait at a join, `owed` those it is to swallow, by connection.
    """

    step_limit: int = 10_000
    phase: str = "pending"
    steps: int = 0
    ready: deque[str] = field(default_factory=deque)
    open: dict[int, Step] = field(default_factory=dict)
    arrived: dict[str, dict[str, int]] = field(default_factory=dict)
    owed: dict[str, dict[str, int]] = field(default_factory=dict)
    outputs: dict[tuple[str, str], Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    has_result: bool = False
    result: Any = None
    error: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """True in a terminal state."""
        return self.phase in TERMINAL

    @property
    def runnable(self) -> bool:
        """True when there is more to evaluate in place."""
        return self.phase == "running" and bool(self.ready)

    @property
    def status(self) -> str:
        """The execution's state as clients know it."""
        idle = self.phase == "running" and not self.ready and self.open
        waiting = idle and all(step.until is not None for step in self.open.values())
        return "waiting" if waiting else self.phase


def replay(graph: Graph, records: Iterable[Record], *, step_limit: int = 10_000) -> ExecutionState:
    """The state that a log leads to."""
    state = ExecutionState(step_limit=step_limit)
    for record in records:
        apply(graph, state, record)
    return state


def apply(graph: Graph, state: ExecutionState, record: Record) -> None:
    """Take one record into the state."""
    _FOLD[record.type](graph, state, record)


def inputs_of(graph: Graph, state: ExecutionState, node: Node, session: Mapping[str, Any]) -> dict[str, Any]:
    """A component's data inputs: the latest value from each connection, else the port's own; others are absent."""
    inputs = dict(node.settings)
    for source in node.sources:
        if source.persistence is None:
            key = (source.component_id, source.route)
            if key in state.outputs:
                inputs[source.input] = state.outputs[key]
        elif source.persistence == "execution" and source.alias in state.values:
            inputs[source.input] = state.values[source.alias]
        elif source.persistence == "session" and source.alias in session:
            inputs[source.input] = session[source.alias]
        elif source.component_id in graph.constants:
            inputs[source.input] = graph.constants[source.component_id]
    return inputs


def _flow_entered(graph: Graph, state: ExecutionState, record: Record) -> None:
    state.phase = "running"
    state.values = dict(graph.initial) | dict(record.private["input_data"])
    state.ready.append(graph.start)


def _flow_exited(graph: Graph, state: ExecutionState, record: Record) -> None:
    state.phase = "completed"
    _clear(state)


def _flow_error(graph: Graph, state: ExecutionState, record: Record) -> None:
    state.phase = "failed"
    state.error = dict(record.public["error"])
    _clear(state)


def _flow_stopping(graph: Graph, state: ExecutionState, record: Record) -> None:
    state.phase = "stopping"


def _flow_stopped(graph: Graph, state: ExecutionState, record: Record) -> None:
    state.phase = "stopped"
    _clear(state)


def _clear(state: ExecutionState) -> None:
    state.ready.clear()
    state.open.clear()


def _entered(graph: Graph, state: ExecutionState, record: Record) -> None:
    assert record.step is not None
    node = graph.components[state.ready.popleft()]
    state.steps = record.step
    inputs = inputs_of(graph, state, node, record.private.get("session", {}))
    state.open[record.step] = Step(node.id, 1, inputs)


def _exited(graph: Graph, state: ExecutionState, record: Record) -> None:
    assert record.step is not None
    node = graph.components[state.open.pop(record.step).component_id]
    for route, value in record.private.get("outputs", {}).items():
        state.outputs[node.id, route] = value
        for persistence, alias in node.writes.get(route, ()):
            if persistence == "execution":
                state.values[alias] = value
        if node.type == "flow.end" and route == "value":
            state.has_result, state.result = True, value
    _pass(graph, state, node, record.public["route"])


def _error(graph: Graph, state: ExecutionState, record: Record) -> None:
    assert record.step is not None
    node = graph.components[state.open.pop(record.step).component_id]
    _pass(graph, state, node, "failure")


def _retrying(graph: Graph, state: ExecutionState, record: Record) -> None:
    assert record.step is not None
    step = state.open[record.step]
    step.attempt, step.until = record.public["attempt"], record.public["until"]


def _waiting(graph: Graph, state: ExecutionState, record: Record) -> None:
    assert record.step is not None
    state.open[record.step].until = record.public["until"]


def _output(graph: Graph, state: ExecutionState, record: Record) -> None:
    """What a component says on the way changes nothing."""


def _pass(graph: Graph, state: ExecutionState, node: Node, route: str) -> None:
    """Pass control along every connection of a route, in order."""
    for target in node.control.get(route, ()):
        if graph.components[target.component_id].kind is Kind.JOIN:
            _arrive(state, graph.components[target.component_id], target.connection_id)
        else:
            state.ready.append(target.component_id)


def _arrive(state: ExecutionState, join: Node, connection_id: str) -> None:
    """A token reaches a join, by one of its connections."""
    owed = state.owed.setdefault(join.id, {})
    if owed.get(connection_id):
        owed[connection_id] -= 1
    elif join.join_first:
        for other in join.incoming:
            if other != connection_id:
                owed[other] = owed.get(other, 0) + 1
        state.ready.append(join.id)
    else:
        arrived = state.arrived.setdefault(join.id, dict.fromkeys(join.incoming, 0))
        arrived[connection_id] += 1
        if all(arrived.values()):
            for other in arrived:
                arrived[other] -= 1
            state.ready.append(join.id)


_FOLD: dict[str, Callable[[Graph, ExecutionState, Record], None]] = {
    "flow.entered": _flow_entered,
    "flow.exited": _flow_exited,
    "flow.error": _flow_error,
    "flow.stopping": _flow_stopping,
    "flow.stopped": _flow_stopped,
    "processor.entered": _entered,
    "processor.exited": _exited,
    "processor.error": _error,
    "processor.retrying": _retrying,
    "processor.waiting": _waiting,
    "processor.output": _output,
}
