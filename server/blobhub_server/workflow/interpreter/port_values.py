"""The values of ports that are expressions or templates: evaluated when their component gets control.

What they refer to is in the state, or in the session objects that the record of the step has. So their values are a function
of the fold: replaying a log evaluates them again, to the same values and at the same price.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from blobhub_server.blobtypes.expressions import ExpressionError, Fuel, Namespace, evaluate_computed
from blobhub_server.workflow.components.contract import (
    ComponentError,
    ExpressionComponent,
    ExpressionContext,
    PureComponent,
)
from blobhub_server.workflow.components.expressions import message_of
from blobhub_server.workflow.definitions.graph import Graph, Node
from blobhub_server.workflow.definitions.references import (
    ERROR,
    INPUT,
    OF_ROUNDS,
    SESSION,
    STEPS,
    VALUES,
    PortValue,
    Reference,
)
from blobhub_server.workflow.interpreter.activation import ROOT
from blobhub_server.workflow.interpreter.holdings import Slot
from blobhub_server.workflow.interpreter.size import memory_of
from blobhub_server.workflow.values import unwrap

if TYPE_CHECKING:
    from blobhub_server.workflow.interpreter.state import ExecutionState

_PASSED_FUEL = 10
"""What it takes to give a value as it is."""

_ABSENCES = {
    INPUT: "the execution was not given the input",
    VALUES: "nothing has set the value",
    SESSION: "the session does not have the object",
    STEPS: "there is no step",
}
"""What is said of what is absent, before its name."""

_OF_OUTPUTS = frozenset({STEPS, ERROR, *OF_ROUNDS})
"""What references to outputs begin with."""

Found = Mapping[Reference, Any]
"""What references have led to, as it is in the state; those that led to nothing are not in it."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What evaluating the ports of a step came to.

    `inputs` are those that were evaluated, up to the one that has no value, if there is one: `reason`, `message` and `line`
    say why. `work` is the fuel that it took, `memory` what the values take. `found` is what references have led to, where
    the step may be run again on other session objects.
    """

    inputs: tuple[str, ...] = ()
    work: int = 0
    memory: int = 0
    reason: str = ""
    message: str = ""
    line: int = 0
    found: Found = field(default_factory=dict)

    def require_values(self) -> None:
        """Raise ComponentError where one has no value."""
        if self.reason:
            raise ComponentError(self.message, reason=self.reason, line=self.line or None, retryable=False)


def evaluate_ports(
    graph: Graph,
    state: ExecutionState,
    node: Node,
    activation: int,
    session: Mapping[str, Any],
    inputs: MutableMapping[str, Any],
    slots: list[Slot],
    origin: str,
) -> Evaluated:
    """Evaluate the ports to which no connection has brought a value, into `inputs`.

    `slots` gets those of the values that are kept for it.
    """
    pending = [name for name in node.computed if name not in inputs]
    references = _references(node, node.computed if node.reread else pending)
    found, places = find(graph, state, activation, references, session, origin)
    if node.reread:
        slots += places.values()
    fuel, done, memory = Fuel(), list[str](), 0
    kept = {reference: found[reference] for reference in found if reference.root != SESSION} if node.reread else {}
    for name in pending:
        value = node.computed[name]
        done.append(name)
        try:
            inputs[name] = _value(value, found, fuel)
        except ExpressionError as error:
            failed = _failed(name, error)
            return replace(failed, inputs=tuple(done), work=fuel.spent, memory=memory, found=kept)
        if value.passed is None:
            memory += memory_of(inputs[name])
        elif value.passed in places:
            slots.append(places[value.passed])
    return Evaluated(inputs=tuple(done), work=fuel.spent, memory=memory, found=kept)


def evaluate_again(
    graph: Graph, node: Node, evaluated: Evaluated, session: Mapping[str, Any], names: Iterable[str]
) -> dict[str, Any]:
    """The values of ports on other session objects, by name. Raises ComponentError where one has none."""
    values, fuel, found = dict[str, Any](), Fuel(), dict(evaluated.found)
    for reference in _references(node, names):
        if reference.root == SESSION:
            _find_session(graph, reference, session, found)
    for name in names:
        try:
            values[name] = _value(node.computed[name], found, fuel)
        except ExpressionError as error:
            _failed(name, error).require_values()
    return values


def run_in_context(
    graph: Graph, state: ExecutionState, step: int, component: PureComponent, session: Mapping[str, Any]
) -> object:
    """What a component gives. Its expressions see what they refer to, and share the fuel with those of its ports."""
    inputs = state.open[step].inputs
    if not isinstance(component, ExpressionComponent):
        return component.run(inputs)
    return component.run_in(inputs, expression_context(graph, state, step, session))


def expression_context(graph: Graph, state: ExecutionState, step: int, session: Mapping[str, Any]) -> ExpressionContext:
    """What the expressions in a component's settings refer to, and the fuel that those of its ports have left."""
    about = state.open[step]
    references = graph.components[about.component_id].references
    fuel = Fuel()
    fuel.left -= about.evaluated.work if about.evaluated else 0
    found, _ = find(graph, state, about.activation, references, session, about.origin)
    return ExpressionContext(names=_names(references, found), fuel=fuel)


def find(
    graph: Graph,
    state: ExecutionState,
    activation: int,
    references: Iterable[Reference],
    session: Mapping[str, Any],
    origin: str,
) -> tuple[Found, dict[Reference, Slot]]:
    """What references of a step in an activation lead to, and where in the state it is, if it is there."""
    found, slots = dict[Reference, Any](), dict[Reference, Slot]()
    for reference in references:
        key = reference.key
        if reference.root in _OF_OUTPUTS:
            output = (origin, ERROR) if reference.root == ERROR else (key, reference.output)
            if (holder := state.where(activation, output)) is not None:
                found[reference], slots[reference] = holder.outputs[output], (holder.number, *output)
        elif reference.root == SESSION:
            _find_session(graph, reference, session, found)
        elif reference.root == INPUT:
            if key in state.input_data:
                found[reference], slots[reference] = state.input_data[key], input_slot(key)
        elif key in state.values:
            found[reference], slots[reference] = state.values[key], key
        elif reference.own:
            found[reference] = graph.constants[reference.own]
    return found, slots


def input_slot(alias: str) -> Slot:
    """The slot of an input as it was given; no component has an empty id."""
    return ROOT, "", alias


def _find_session(
    graph: Graph, reference: Reference, session: Mapping[str, Any], found: MutableMapping[Reference, Any]
) -> None:
    if reference.key in session:
        found[reference] = session[reference.key]
    elif reference.own:
        found[reference] = graph.constants[reference.own]


def _references(node: Node, names: Iterable[str]) -> dict[Reference, None]:
    """What some ports of a component refer to."""
    return dict.fromkeys(reference for name in names for reference in node.computed[name].references)


def _value(value: PortValue, found: Found, fuel: Fuel) -> Any:
    """Raises ExpressionError."""
    if value.passed is not None and value.passed in found:
        fuel.spend(_PASSED_FUEL)
        return unwrap(found[value.passed])
    names = _names(value.references, found)
    return evaluate_computed(value.computed, names, fuel)


def _names(references: Iterable[Reference], found: Found) -> dict[str, Any]:
    """What references lead to, by the names that expressions use."""
    names: dict[str, Any] = {}
    for reference in references:
        if reference.root == ERROR or reference.root in OF_ROUNDS:
            names.update({reference.root: unwrap(found[reference])} if reference in found else {})
            continue
        root, *between, last = reference.path
        space = names.setdefault(root, Namespace(_ABSENCES[root]))
        for key in between:
            space = space.setdefault(key, Namespace(f"the step `{key[:60]}` has not given the output"))
        if reference in found:
            space[last] = unwrap(found[reference])
    return names


def _failed(name: str, error: ExpressionError) -> Evaluated:
    message = f"the input {name!r}: {message_of(error)}"
    return Evaluated(reason=error.reason, message=message, line=error.line)
