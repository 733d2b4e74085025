"""An execution's state, and the fold of records, which alone changes it.

The state depends on nothing but the records: folding a log gives the state that the execution had when it was written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from blobhub_server.workflow.components.awaits import NEXT_ATTEMPT, Await, AwaitKind
from blobhub_server.workflow.components.contract import ComponentKind
from blobhub_server.workflow.components.operations import SET
from blobhub_server.workflow.definitions.graph import END, Graph, Node
from blobhub_server.workflow.interpreter.holdings import Holdings, Slot, Version
from blobhub_server.workflow.interpreter.joins import Joins, Token
from blobhub_server.workflow.interpreter.port_values import Evaluated, evaluate_ports, input_slot
from blobhub_server.workflow.interpreter.records import Record
from blobhub_server.workflow.interpreter.session_values import apply_writes, made_bytes
from blobhub_server.workflow.interpreter.size import measure


@dataclass(frozen=True, slots=True)
class Step:
    """An activation of a component that has not ended.

    `awaits` is what it waits for, until the unix time `until` at most; None while the component is run. `session` holds the
    session objects that it was entered with, by alias, where they are read again whenever it is run. `held` is what it
    takes in memory. `failures` counts its attempts that failed; one that a server went down under did not. `origin` is the
    component whose route `failure` led here last, "" where none did: its output `error` says why. `evaluated` is what
    evaluating its ports came to, where there are some to evaluate.
    """

    component_id: str
    attempt: int
    inputs: Mapping[str, Any]
    awaits: Await | None = None
    until: float | None = None
    session: Mapping[str, Any] = field(default_factory=dict)
    held: tuple[Version, ...] = ()
    failures: int = 0
    origin: str = ""
    evaluated: Evaluated | None = None

    def waits(self, now: float) -> bool:
        """Whether it still waits. A step whose next attempt is due does not wait any more; it is run."""
        if self.awaits is None:
            return False
        return self.awaits.kind is not AwaitKind.ATTEMPT or self.until is None or self.until > now


@dataclass(slots=True)
class ExecutionState:
    """Where an execution is.

    `ready` holds the tokens whose components have not been entered, in order. `tokens` counts all there are: those in
    `ready`, those of open steps, and those that wait at joins. `busy` is how many open steps are run and wait for nothing.
    `late` has the marks of the open steps' tokens that have any, by step. `input_data` has the inputs that expressions read
    as they were given. `logged` is how many bytes the log has (`size.py`), `holdings` what the state takes in memory.

    Values in it are replaced and never changed in place, so that a copy costs no more than its dictionaries.
    """

    step_limit: int
    phase: str = "pending"
    steps: int = 0
    tokens: int = 0
    busy: int = 0
    ready: deque[Token] = field(default_factory=deque)
    open: dict[int, Step] = field(default_factory=dict)
    late: dict[int, int] = field(default_factory=dict)
    joins: Joins = field(default_factory=Joins)
    outputs: dict[tuple[str, str], Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    input_data: Mapping[str, Any] = field(default_factory=dict)
    has_result: bool = False
    result: Any = None
    error: dict[str, Any] | None = None
    logged: int = 0
    holdings: Holdings = field(default_factory=Holdings)

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
        waiting = self.phase == "running" and not self.ready and self.open and not self.busy
        return "waiting" if waiting else self.phase

    def copy(self) -> ExecutionState:
        """An independent copy."""
        return replace(
            self,
            ready=deque(self.ready),
            open=dict(self.open),
            late=dict(self.late),
            joins=self.joins.copy(),
            outputs=dict(self.outputs),
            values=dict(self.values),
            holdings=self.holdings.copy(),
        )


def apply(graph: Graph, state: ExecutionState, record: Record) -> tuple[int, int]:
    """Take one record into the state; return how many bytes it adds to the log, and what its values take in memory."""
    type_, (logged, memory, kept) = RECORD_TYPES[record.type], measure(record)
    type_.fold(graph, state, record, kept)
    state.logged += logged
    if type_.ends:
        state.phase = type_.ends
        state.tokens = state.busy = 0
        state.ready.clear()
        state.open.clear()
        state.late.clear()
        state.joins.clear()
        state.holdings.clear()
    return logged, memory


def inputs_of(
    graph: Graph, state: ExecutionState, node: Node, session: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Slot]]:
    """A component's data inputs: the latest value from each connection, else the port's own; others are absent, or computed.

    Also the slots that they were taken from, of those that the state has.
    """
    inputs, slots = dict(node.settings), list[Slot]()
    for source in node.sources:
        if source.persistence is None:
            key = (source.component_id, source.route)
            if key in state.outputs:
                inputs[source.input] = state.outputs[key]
                slots.append(key)
        elif source.persistence == "execution" and source.alias in state.values:
            inputs[source.input] = state.values[source.alias]
            slots.append(source.alias)
        elif source.persistence == "session" and source.alias in session:
            inputs[source.input] = session[source.alias]
        elif source.component_id in graph.constants:
            inputs[source.input] = graph.constants[source.component_id]
    return inputs, slots


def _flow_entered(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    state.phase = "running"
    state.values = dict(graph.initial) | dict(record.private["input_data"])
    state.input_data = {alias: state.values[alias] for alias in graph.input_reads & state.values.keys()}
    for alias, size in kept.items():
        state.holdings.put(alias, (size, 0, alias))
        if alias in graph.input_reads:
            state.holdings.put(input_slot(alias), (size, 0, alias))
    state.tokens = 1
    state.ready.append((graph.start, 0, ""))


def _flow_error(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    state.error = dict(record.public["error"])


def _flow_stopping(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    state.phase = "stopping"


def _entered(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    assert record.step is not None
    component_id, late, origin = state.ready.popleft()
    node = graph.components[component_id]
    state.steps = record.step
    session = record.private.get("session", {})
    inputs, slots = inputs_of(graph, state, node, session)
    read, evaluated = sum(kept.values()) if kept else 0, None
    if node.computed:
        evaluated = evaluate_ports(graph, state, node, session, inputs, slots, origin)
        read += evaluated.memory
    state.busy += 1
    state.open[record.step] = Step(
        component_id=node.id,
        attempt=1,
        inputs=inputs,
        session=session if node.reread else {},
        held=state.holdings.enter(slots, len(inputs), read),
        origin=origin,
        evaluated=evaluated,
    )
    if late:
        state.late[record.step] = late


def _exited(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    _end_step(graph, state, record, kept, record.public["route"])


def _error(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    _end_step(graph, state, record, kept, "failure")


def _end_step(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int], route: str) -> None:
    """Close a step, keep its outputs, and pass its token on."""
    assert record.step is not None
    ended = state.open.pop(record.step)
    state.holdings.leave(ended.held)
    state.busy -= ended.awaits is None
    node = graph.components[ended.component_id]
    outputs = record.private.get("outputs", {})
    if node.writes:
        _write(state, node, record.step, outputs, kept)
    for name, value in outputs.items():
        state.outputs[node.id, name] = value
        state.holdings.put((node.id, name), (kept[name], record.step, name))
        if node.type == END and name == "value":
            state.has_result, state.result = True, value
    _pass(graph, state, record.step, node, route, node.id if route == "failure" else ended.origin)


def _retrying(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    assert record.step is not None
    step, public = state.open[record.step], record.public
    failures = step.failures + (not record.private.get("interrupted"))
    state.busy -= step.awaits is None
    state.open[record.step] = replace(
        step, attempt=public["attempt"], awaits=NEXT_ATTEMPT, until=public["until"], failures=failures
    )


def _waiting(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    assert record.step is not None
    step, public = state.open[record.step], record.public
    state.busy -= step.awaits is None
    state.open[record.step] = replace(step, awaits=Await.from_json(public["await"]), until=public["until"])


def _nothing(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    """Change nothing by itself."""


def _write(state: ExecutionState, node: Node, step: int, outputs: Mapping[str, Any], kept: Mapping[str, int]) -> None:
    """Write a component's outputs to the values of the execution."""
    made = apply_writes(node, outputs, "execution", state.values)
    if not made:
        return
    state.values |= made
    for route in outputs:
        for write in node.writes.get(route, ()):
            if write.persistence == "execution":
                size = made_bytes(write.operation, state.holdings.size(write.alias), kept[route])
                name = route if write.operation == SET else f"{route} {write.alias}"
                state.holdings.put(write.alias, (size, step, name))


def _pass(graph: Graph, state: ExecutionState, step: int, source: Node, route: str, origin: str) -> None:
    """Pass a step's token on along every connection of a route, in order: all are placed before any join looks at them."""
    late = state.late.pop(step, 0)
    targets = source.control.get(route, ())
    joins: list[Node] = []
    for target in targets:
        node = graph.components[target.component_id]
        if node.kind is not ComponentKind.JOIN:
            state.ready.append((node.id, late, origin))
            continue
        if not node.late_mark:
            state.joins.put(node, target.connection_id, late, origin)
        joins.append(node)
    state.tokens += len(targets) - 1
    for join in joins:
        if join.late_mark:
            late = _arrive_first(state, join, late, origin)
        elif merged := state.joins.take(join):
            state.tokens -= len(join.incoming) - 1
            state.ready.append(merged)


def _arrive_first(state: ExecutionState, join: Node, late: int, origin: str) -> int:
    """A token comes to a join of mode `first`, which fires or swallows it; return the marks of those placed beside it."""
    mark = join.late_mark
    if late & mark:
        state.tokens -= 1
        return late
    state.ready = deque((component_id, marks | mark, led) for component_id, marks, led in state.ready)
    state.late = {step: state.late.get(step, 0) | mark for step in state.open}
    state.joins.mark_late(mark)
    state.ready.append((join.id, late, origin))
    return late | mark


@dataclass(frozen=True, slots=True)
class RecordType:
    """What a type of record does to the state.

    `fold` is given what the record's values take in memory, by name. One that `ends` the log leads to that phase, and
    nothing follows it.
    """

    fold: Callable[[Graph, ExecutionState, Record, Mapping[str, int]], None]
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
