"""The fold of records, which alone changes an execution's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from blobhub_server.workflow.components.awaits import NEXT_ATTEMPT, RECEIVED, Await
from blobhub_server.workflow.components.contract import ComponentKind
from blobhub_server.workflow.components.operations import SET
from blobhub_server.workflow.definitions.graph import END, Graph, Node
from blobhub_server.workflow.interpreter.activation import ROOT
from blobhub_server.workflow.interpreter.control import close_step, place
from blobhub_server.workflow.interpreter.kept_signals import KeptSignal
from blobhub_server.workflow.interpreter.port_values import evaluate_ports, input_slot
from blobhub_server.workflow.interpreter.records import Record
from blobhub_server.workflow.interpreter.scope_fold import (
    begin_scope,
    fold_ending,
    fold_entered,
    fold_exited,
    fold_left,
    forget_scope,
    try_again,
)
from blobhub_server.workflow.interpreter.session_values import apply_writes, made_bytes
from blobhub_server.workflow.interpreter.size import measure
from blobhub_server.workflow.interpreter.state import ExecutionState, Step, inputs_of


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
        state.activations.clear()
        state.scopes.clear()
        state.quiet.clear()
        state.signals.clear()
        state.holdings.clear()
    return logged, memory


def _flow_entered(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    state.phase = "running"
    state.values = dict(graph.initial) | dict(record.private["input_data"])
    state.input_data = {alias: state.values[alias] for alias in graph.input_reads & state.values.keys()}
    for alias, size in kept.items():
        state.holdings.put(alias, (size, 0, alias))
        if alias in graph.input_reads:
            state.holdings.put(input_slot(alias), (size, 0, alias))
    root = state.own(ROOT)
    root.tokens = root.active = state.tokens = 1
    state.ready.append((graph.start, 0, "", ROOT))


def _flow_exited(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    if "result" in record.public:
        state.has_result, state.result = True, record.public["result"]


def _flow_error(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    state.error = dict(record.public["error"])


def _flow_stopping(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    state.phase = "stopping"
    if "ending" in record.private:
        fold_ending(graph, state, ROOT, record)


def _flow_ending(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    fold_ending(graph, state, ROOT, record)


def _flow_signalled(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    public, private = record.public, record.private
    memory_bytes = kept["value"]
    state.signals.put(
        KeptSignal(
            name=public["name"],
            key=public["key"],
            value=private["signal"]["value"],
            size_bytes=private["size"],
            memory_bytes=memory_bytes,
        )
    )
    state.holdings.bytes += memory_bytes


def _entered(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    assert record.step is not None
    component_id, late, origin, number = state.ready.popleft()
    node = graph.components[component_id]
    state.steps = record.step
    session = record.private.get("session", {})
    inputs, slots = inputs_of(graph, state, node, number, session)
    read, evaluated = sum(kept.values()) if kept else 0, None
    if node.computed:
        evaluated = evaluate_ports(graph, state, node, number, session, inputs, slots, origin)
        read += evaluated.memory
    state.busy += 1
    state.open[record.step] = Step(
        component_id=node.id,
        activation=number,
        attempt=1,
        inputs=inputs,
        session=session if node.reread else {},
        held=state.holdings.enter(slots, len(inputs), read),
        origin=origin,
        evaluated=evaluated,
    )
    activation = state.own(number)
    activation.entered += 1
    if late:
        activation.late[record.step] = late
    if node.kind is ComponentKind.SCOPE:
        begin_scope(graph, state, record.step)


def _exited(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    if record.public["route"] == RECEIVED:
        assert record.step is not None
        taken = state.signals.take(state.open[record.step].awaits)
        state.holdings.bytes -= 0 if taken is None else taken.memory_bytes
    _end_step(graph, state, record, kept, record.public["route"])


def _error(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    _end_step(graph, state, record, kept, "failure")


def _end_step(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int], route: str) -> None:
    """Close a step, keep its outputs, and pass its token on along every connection of the route."""
    assert record.step is not None
    ended, activation, late = close_step(state, record.step)
    node = graph.components[ended.component_id]
    if node.kind is ComponentKind.SCOPE:
        forget_scope(state, record.step, node.id)
    outputs = record.private.get("outputs", {})
    if node.writes:
        _write(state, node, record.step, outputs, kept)
    for name, value in outputs.items():
        activation.outputs[node.id, name] = value
        state.holdings.put((activation.number, node.id, name), (kept[name], record.step, name))
        if node.type == END and name == "value" and activation.number == ROOT:
            state.has_result, state.result = True, value
    origin = node.id if route == "failure" else ended.origin
    place(graph, state, activation, node.control.get(route, ()), late, origin)


def _retrying(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    assert record.step is not None
    step, public = state.open[record.step], record.public
    failures = step.failures + (not record.private.get("interrupted"))
    state.busy -= step.awaits is None
    state.open[record.step] = replace(
        step, attempt=public["attempt"], awaits=NEXT_ATTEMPT, until=public["until"], failures=failures
    )
    if record.step in state.scopes:
        try_again(graph, state, record.step)


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
    "flow.exited": RecordType(_flow_exited, ends="completed"),
    "flow.error": RecordType(_flow_error, ends="failed"),
    "flow.ending": RecordType(_flow_ending),
    "flow.stopping": RecordType(_flow_stopping),
    "flow.stopped": RecordType(_nothing, ends="stopped"),
    "flow.signalled": RecordType(_flow_signalled),
    "processor.entered": RecordType(_entered),
    "processor.exited": RecordType(_exited),
    "processor.error": RecordType(_error),
    "processor.retrying": RecordType(_retrying),
    "processor.waiting": RecordType(_waiting),
    "processor.output": RecordType(_nothing),
    "scope.entered": RecordType(fold_entered),
    "scope.ending": RecordType(fold_left),
    "scope.exited": RecordType(fold_exited),
}
"""Every type of record. How watchers see each is in `log/encode.py`."""

ENDINGS = frozenset(name for name, type_ in RECORD_TYPES.items() if type_.ends)
"""The types of record that end an execution's log."""
