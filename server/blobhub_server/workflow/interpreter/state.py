"""An execution's state, and the fold of records, which alone changes it.

The state depends on nothing but the records: folding a log gives the state that the execution had when it was written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from blobhub_server.workflow.components.awaits import NEXT_ATTEMPT, Await, AwaitKind
from blobhub_server.workflow.components.contract import ComponentKind
from blobhub_server.workflow.definitions.graph import END, Graph, Node
from blobhub_server.workflow.interpreter.records import Record


@dataclass(frozen=True, slots=True)
class Step:
    """An activation of a component that has not ended.

    `awaits` is what it waits for, until the unix time `until` at most; None while the component is run.
    """

    component_id: str
    attempt: int
    inputs: Mapping[str, Any]
    awaits: Await | None = None
    until: float | None = None

    def waits(self, now: float) -> bool:
        """Whether it still waits. A step whose next attempt is due does not wait any more; it is run."""
        if self.awaits is None:
            return False
        return self.awaits.kind is not AwaitKind.ATTEMPT or self.until is None or self.until > now


@dataclass(slots=True)
class ExecutionState:
    """Where an execution is.

    `ready` holds the components that have a token and have not been entered, in order. `arrived` counts the tokens that
    wait at a join, `owed` those it is to swallow, by connection.

    Values in it are replaced and never changed in place, so that a copy costs no more than its dictionaries.
    """

    step_limit: int = 10_000
    phase: str = "pending"
    steps: int = 0
    ready: deque[str] = field(default_factory=deque)
    open: dict[int, Step] = field(default_factory=dict)
    arrived: dict[str, Mapping[str, int]] = field(default_factory=dict)
    owed: dict[str, Mapping[str, int]] = field(default_factory=dict)
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
        waiting = idle and all(step.awaits is not None for step in self.open.values())
        return "waiting" if waiting else self.phase

    def copy(self) -> ExecutionState:
        """An independent copy."""
        return replace(
            self,
            ready=deque(self.ready),
            open=dict(self.open),
            arrived=dict(self.arrived),
            owed=dict(self.owed),
            outputs=dict(self.outputs),
            values=dict(self.values),
        )


def replay(graph: Graph, records: Iterable[Record], *, step_limit: int = 10_000) -> ExecutionState:
    """The state that a log leads to."""
    state = ExecutionState(step_limit=step_limit)
    for record in records:
        apply(graph, state, record)
    return state


def apply(graph: Graph, state: ExecutionState, record: Record) -> None:
    """Take one record into the state."""
    type_ = RECORD_TYPES[record.type]
    type_.fold(graph, state, record)
    if type_.ends:
        state.phase = type_.ends
        state.ready.clear()
        state.open.clear()


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


def _flow_error(graph: Graph, state: ExecutionState, record: Record) -> None:
    state.error = dict(record.public["error"])


def _flow_stopping(graph: Graph, state: ExecutionState, record: Record) -> None:
    state.phase = "stopping"


def _entered(graph: Graph, state: ExecutionState, record: Record) -> None:
    assert record.step is not None
    node = graph.components[state.ready.popleft()]
    state.steps = record.step
    inputs = inputs_of(graph, state, node, record.private.get("session", {}))
    state.open[record.step] = Step(component_id=node.id, attempt=1, inputs=inputs)


def _exited(graph: Graph, state: ExecutionState, record: Record) -> None:
    assert record.step is not None
    node = graph.components[state.open.pop(record.step).component_id]
    for route, value in record.private.get("outputs", {}).items():
        state.outputs[node.id, route] = value
        for persistence, alias in node.writes.get(route, ()):
            if persistence == "execution":
                state.values[alias] = value
        if node.type == END and route == "value":
            state.has_result, state.result = True, value
    _pass(graph, state, node, record.public["route"])


def _error(graph: Graph, state: ExecutionState, record: Record) -> None:
    assert record.step is not None
    node = graph.components[state.open.pop(record.step).component_id]
    _pass(graph, state, node, "failure")


def _retrying(graph: Graph, state: ExecutionState, record: Record) -> None:
    assert record.step is not None
    step, public = state.open[record.step], record.public
    state.open[record.step] = replace(step, attempt=public["attempt"], awaits=NEXT_ATTEMPT, until=public["until"])


def _waiting(graph: Graph, state: ExecutionState, record: Record) -> None:
    assert record.step is not None
    step, public = state.open[record.step], record.public
    state.open[record.step] = replace(step, awaits=Await.from_json(public["await"]), until=public["until"])


def _nothing(graph: Graph, state: ExecutionState, record: Record) -> None:
    """Change nothing by itself."""


def _pass(graph: Graph, state: ExecutionState, node: Node, route: str) -> None:
    """Pass control along every connection of a route, in order."""
    for target in node.control.get(route, ()):
        if graph.components[target.component_id].kind is ComponentKind.JOIN:
            _arrive(state, graph.components[target.component_id], target.connection_id)
        else:
            state.ready.append(target.component_id)


def _arrive(state: ExecutionState, join: Node, connection_id: str) -> None:
    """A token reaches a join, by one of its connections."""
    owed = dict(state.owed.get(join.id, {}))
    if owed.get(connection_id):
        owed[connection_id] -= 1
    elif join.join_first:
        for other in join.incoming:
            if other != connection_id:
                owed[other] = owed.get(other, 0) + 1
        state.ready.append(join.id)
    else:
        arrived = dict(state.arrived.get(join.id) or dict.fromkeys(join.incoming, 0))
        arrived[connection_id] += 1
        if all(arrived.values()):
            arrived = {other: count - 1 for other, count in arrived.items()}
            state.ready.append(join.id)
        state.arrived[join.id] = arrived
    state.owed[join.id] = owed


@dataclass(frozen=True, slots=True)
class RecordType:
    """What a type of record does to the state. One that `ends` the log leads to that phase, and nothing follows it."""

    fold: Callable[[Graph, ExecutionState, Record], None]
    ends: str = ""


RECORD_TYPES: Mapping[str, RecordType] = {
    "flow.entered": RecordType(_flow_entered),
    "flow.exited": RecordType(_nothing, ends="completed"),
    "flow.error": RecordType(_flow_error, ends="failed"),
    "flow.stopping": RecordType(_flow_stopping),
    "flow.stopped": RecordType(_nothing, ends="stopped"),
    "processor.entered": RecordType(_entered),
    "processor.exited": RecordType(_exited),
    "processor.error": RecordType(_error),
    "processor.retrying": RecordType(_retrying),
    "processor.waiting": RecordType(_waiting),
    "processor.output": RecordType(_nothing),
}
"""Every type of record. How watchers see each is in `log/encode.py`."""

ENDINGS = frozenset(name for name, type_ in RECORD_TYPES.items() if type_.ends)
"""The types of record that end an execution's log."""

TERMINAL = frozenset(type_.ends for type_ in RECORD_TYPES.values() if type_.ends)
"""The phases of executions that have ended."""
