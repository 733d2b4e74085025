"""An execution's state. It depends on nothing but the records: only the fold of those changes it (`fold.py`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blobhub_server.workflow.components.awaits import Await, AwaitKind
from blobhub_server.workflow.definitions.graph import Graph, Node
from blobhub_server.workflow.interpreter.activation import FINALLY, ROOT, Activation, Output, Scope
from blobhub_server.workflow.interpreter.holdings import Holdings, Slot, Version
from blobhub_server.workflow.interpreter.kept_signals import KeptSignals
from blobhub_server.workflow.interpreter.port_values import Evaluated

TERMINAL = frozenset({"completed", "failed", "stopped"})
"""The phases of executions that have ended."""

Ready = tuple[str, int, str, int]
"""A token that is ready, and the number of the activation that it is in."""


@dataclass(frozen=True, slots=True)
class Step:
    """A component that was entered and has not ended, in an activation.

    `awaits` is what it waits for, until the unix time `until` at most; None while the component is run. `session` holds the
    session objects that it was entered with, by alias, where they are read again whenever it is run. `held` is what it
    takes in memory. `failures` counts its attempts that failed; one that a server went down under did not. `origin` is the
    component whose route `failure` led here last, "" where none did: its output `error` says why. `evaluated` is what
    evaluating its ports came to, where there are some to evaluate.
    """

    component_id: str
    activation: int
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
    `quiet` has the activations in which nothing is ready or open any more. `scopes` says how far the open steps of scopes
    have come, by step. `begun` counts the activations begun. `signals` has those that no step has waited for yet.
    `input_data` has the inputs that expressions read as they were given. `logged` is how many bytes the log has (`size.py`),
    `holdings` what the state takes in memory.

    Values in it are replaced and never changed in place, so that a copy costs no more than its dictionaries. Activations
    and scopes are copied when they change first: `owned` names those that are this state's alone,
    scopes by negative numbers. `dropped` has the steps that were given up since it was copied.
    """

    step_limit: int
    phase: str = "pending"
    steps: int = 0
    tokens: int = 0
    busy: int = 0
    begun: int = 0
    ready: deque[Ready] = field(default_factory=deque)
    open: dict[int, Step] = field(default_factory=dict)
    activations: dict[int, Activation] = field(default_factory=lambda: {ROOT: Activation(number=ROOT, parent=ROOT, step=0)})
    scopes: dict[int, Scope] = field(default_factory=dict)
    quiet: dict[int, None] = field(default_factory=dict)
    signals: KeptSignals = field(default_factory=KeptSignals)
    values: dict[str, Any] = field(default_factory=dict)
    input_data: Mapping[str, Any] = field(default_factory=dict)
    has_result: bool = False
    result: Any = None
    error: dict[str, Any] | None = None
    logged: int = 0
    holdings: Holdings = field(default_factory=Holdings)
    owned: set[int] = field(default_factory=set, compare=False)
    dropped: list[int] = field(default_factory=list, compare=False)

    @property
    def ended(self) -> bool:
        """True in a terminal state."""
        return self.phase in TERMINAL

    @property
    def running(self) -> bool:
        """True while components may be entered: also while a stop lets the `finally` of scopes run."""
        return self.phase == "running" or (self.phase == "stopping" and self.activations[ROOT].ending is not None)

    @property
    def runnable(self) -> bool:
        """True when there is more to evaluate in place."""
        return self.running and bool(self.ready or self.quiet)

    @property
    def status(self) -> str:
        """The execution's state as clients know it."""
        waiting = self.phase == "running" and not self.ready and self.open and not self.busy
        return "waiting" if waiting else self.phase

    def copy(self) -> ExecutionState:
        """An independent copy."""
        return ExecutionState(  # Each turn makes one, and `replace` takes three times as long.
            step_limit=self.step_limit,
            phase=self.phase,
            steps=self.steps,
            tokens=self.tokens,
            busy=self.busy,
            begun=self.begun,
            ready=deque(self.ready),
            open=dict(self.open),
            activations=dict(self.activations),
            scopes=dict(self.scopes),
            quiet=dict(self.quiet),
            signals=self.signals.copy(),
            values=dict(self.values),
            input_data=self.input_data,
            has_result=self.has_result,
            result=self.result,
            error=self.error,
            logged=self.logged,
            holdings=self.holdings.copy(),
        )

    def own(self, number: int) -> Activation:
        """An activation, to be changed."""
        if number in self.owned:
            return self.activations[number]
        self.owned.add(number)
        made = self.activations[number] = self.activations[number].copy()
        return made

    def own_scope(self, step: int) -> Scope:
        """How far the step of a scope has come, to be changed."""
        if -step in self.owned:
            return self.scopes[step]
        self.owned.add(-step)
        made = self.scopes[step] = self.scopes[step].copy()
        return made

    def where(self, number: int, output: Output) -> Activation | None:
        """The innermost activation from there outward that has an output; None where none has."""
        while True:
            activation = self.activations[number]
            if output in activation.outputs:
                return activation
            if number == ROOT:
                return None
            number = activation.parent

    def is_left(self, number: int) -> bool:
        """Whether an activation around this one is being left. A `finally` is run to its end all the same."""
        while number != ROOT:
            activation = self.activations[number]
            if activation.part == FINALLY:
                return False
            number = activation.parent
            if self.activations[number].ending is not None:
                return True
        return False


def inputs_of(
    graph: Graph, state: ExecutionState, node: Node, activation: int, session: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Slot]]:
    """A component's data inputs: the latest value from each connection, else the port's own; others are absent, or computed.

    Also the slots that they were taken from, of those that the state has.
    """
    inputs, slots = dict(node.settings), list[Slot]()
    for source in node.sources:
        if source.persistence is None:
            output = (source.component_id, source.route)
            if (found := state.where(activation, output)) is not None:
                inputs[source.input] = found.outputs[output]
                slots.append((found.number, *output))
        elif source.persistence == "execution" and source.alias in state.values:
            inputs[source.input] = state.values[source.alias]
            slots.append(source.alias)
        elif source.persistence == "session" and source.alias in session:
            inputs[source.input] = session[source.alias]
        elif source.component_id in graph.constants:
            inputs[source.input] = graph.constants[source.component_id]
    return inputs, slots
