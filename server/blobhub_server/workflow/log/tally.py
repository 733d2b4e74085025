"""What an execution has done so far, by component, as the public events of its log say: for a drawing of its definition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from blobhub.v1 import event_pb2

from blobhub_server.db.engine import Database
from blobhub_server.turnstile import Party, off_loop
from blobhub_server.workflow.definitions.picture import Counts
from blobhub_server.workflow.interpreter.activation import FINALLY, ROOT
from blobhub_server.workflow.log.listing import Part
from blobhub_server.workflow.rules.execution import Execution

LINES_AT_ONCE = 1_000
"""How many lines are read and counted before it is others' turn."""

_TYPES = (
    *("processor.entered", "processor.exited", "processor.error", "processor.retrying", "processor.waiting"),
    *("scope.entered", "scope.ending", "scope.exited"),
    *("flow.exited", "flow.error", "flow.ending", "flow.stopping", "flow.stopped"),
)


@dataclass(slots=True)
class _Activation:
    """An activation that goes on: its part, its steps that do, and the activations of scopes in it."""

    parent: int = ROOT
    part: str = ""
    steps: set[int] = field(default_factory=set)
    inner: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Step:
    component_id: str
    activation: int
    state: str = "running"
    is_scope: bool = False


class Tally:
    """Counts the steps of an execution by component and state."""

    def __init__(self) -> None:
        self.components: defaultdict[str, Counts] = defaultdict(Counts)
        self._steps: dict[int, _Step] = {}
        self._activations: defaultdict[int, _Activation] = defaultdict(_Activation)

    def count(self, events: Iterable[event_pb2.Event]) -> None:
        """Take in the events that come next."""
        for event in events:
            self._count(event)

    def _count(self, event: event_pb2.Event) -> None:
        step = event.processor.step
        match event.WhichOneof("payload"):
            case "processor_entered":
                self._enter(step, event.processor)
            case "processor_exited":
                self._end(step, "done", event.processor_exited.route)
            case "processor_error":
                self._end(step, "failed", "failure")
            case "processor_retrying":
                self._move(step, "retrying")
            case "processor_waiting":
                self._move(step, "waiting")
            case "scope_entered":
                self._begin(step, event.scope_entered)
            case "scope_ending":
                self._cut(event.scope_ending.activation)
            case "scope_exited":
                self._remove(event.scope_exited.activation)
            case "flow_ending":
                self._cut(ROOT)
            case "flow_stopping" if event.flow_stopping.HasField("end_time"):
                self._cut(ROOT)
            case "flow_exited" | "flow_error" | "flow_stopped":
                for left in list(self._steps):
                    self._end(left, "left")

    def _enter(self, number: int, processor: event_pb2.Processor) -> None:
        self._steps[number] = _Step(component_id=processor.processor_id, activation=processor.activation)
        self._activations[processor.activation].steps.add(number)
        self.components[processor.processor_id].states["running"] += 1

    def _move(self, number: int, state: str) -> None:
        if (step := self._steps.get(number)) is not None:
            states = self.components[step.component_id].states
            states[step.state] -= 1
            states[state] += 1
            step.state = state

    def _end(self, number: int, state: str, route: str = "") -> None:
        """A step ends. One that was given up may be told to have ended as well."""
        self._move(number, state)
        step = self._steps.pop(number, None)
        if step is not None:
            if (activation := self._activations.get(step.activation)) is not None:
                activation.steps.discard(number)
            if route:
                self.components[step.component_id].routes[route] += 1

    def _begin(self, number: int, entered: event_pb2.ScopeEntered) -> None:
        """An activation of the scope of a step begins."""
        if (step := self._steps.get(number)) is None:
            return
        self._move(number, "running")
        step.is_scope = True
        self._activations[entered.activation] = _Activation(parent=step.activation, part=entered.part)
        self._activations[step.activation].inner.add(entered.activation)
        self.components[step.component_id].routes[entered.part] += 1

    def _cut(self, number: int) -> None:
        """An activation is left: the steps in it are given up, but for scopes, and what is in a `finally`."""
        activation = self._activations[number]
        for step in [step for step in activation.steps if not self._steps[step].is_scope]:
            self._end(step, "left")
        for inner in activation.inner:
            if self._activations[inner].part != FINALLY:
                self._cut(inner)

    def _remove(self, number: int) -> None:
        """An activation ends, with all that is in it."""
        activation = self._activations.pop(number, None)
        if activation is None:
            return
        self._activations[activation.parent].inner.discard(number)
        for inner in list(activation.inner):
            self._remove(inner)
        for step in list(activation.steps):
            self._end(step, "left")


async def tally_of(db: Database, execution: Execution, party: Party) -> Tally:
    """Count what an execution has done, up to its last event."""
    tally = Tally()
    rest = Part(session_id=execution.session_id, execution_id=execution.id, after=0, last=execution.last_execution_sequence)
    while rest.after < rest.last:
        async with db.scan(party) as tx:
            lines = await rest.read(tx, types=_TYPES, descending=False, limit=LINES_AT_ONCE)
        if not lines:
            break
        events = [line.event for line in lines]
        await off_loop(sum(map(len, events)), party, partial(_count, tally, events))
        rest = rest.follow(rest.number(lines[-1]), descending=False)
    return tally


def _count(tally: Tally, events: Iterable[bytes]) -> None:
    tally.count(map(event_pb2.Event.FromString, events))
