"""The fold of records about scopes: activations that begin, that are left, and that end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace

from blobhub_server.workflow.components.awaits import IN_SCOPE, NEXT_ATTEMPT
from blobhub_server.workflow.components.contract import ComponentKind
from blobhub_server.workflow.components.each import Each
from blobhub_server.workflow.components.repeated import STATE, Loop
from blobhub_server.workflow.components.scopes import ScopeComponent
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter.activation import BODY, FINALLY, Activation, Scope
from blobhub_server.workflow.interpreter.control import close_step, place
from blobhub_server.workflow.interpreter.holdings import Slot
from blobhub_server.workflow.interpreter.records import Record
from blobhub_server.workflow.interpreter.state import ExecutionState
from blobhub_server.workflow.interpreter.tally import Tally


def scope_of(graph: Graph, component_id: str) -> ScopeComponent:
    """The scope that a component is."""
    component = graph.components[component_id].implementation
    assert isinstance(component, ScopeComponent)
    return component


def begin_scope(graph: Graph, state: ExecutionState, step: int) -> None:
    """A step of a scope begins, or begins anew."""
    about = state.open[step]
    component = scope_of(graph, about.component_id)
    value = component.begins_with(about.inputs) if isinstance(component, Loop) else None
    _forget_results(state, step)
    state.scopes[step] = Scope(value=value)
    state.owned.add(-step)


def try_again(graph: Graph, state: ExecutionState, step: int) -> None:
    """A scope is to be tried again: a loop's round that has failed, of any other scope all of it."""
    if isinstance(scope_of(graph, state.open[step].component_id), Loop):
        scope = state.own_scope(step)
        scope.rounds = max(0, scope.rounds - 1)
    else:
        begin_scope(graph, state, step)


def forget_scope(state: ExecutionState, step: int, component_id: str) -> None:
    """The step of a scope ends."""
    _forget_results(state, step)
    del state.scopes[step]
    state.holdings.drop(_value_slot(step, component_id))


def _forget_results(state: ExecutionState, step: int) -> None:
    """What the items of an `each` have given is not held any more."""
    scope = state.scopes.get(step)
    if scope is not None and scope.tally is not None:
        state.holdings.bytes -= scope.tally.memory


def _value_slot(step: int, component_id: str) -> Slot:
    """The slot of what a scope's rounds have come to; no activation has a negative number."""
    return -step, component_id, STATE


def fold_entered(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    """An activation begins: a token is placed wherever the scope's part leads."""
    assert record.step is not None
    step, public = state.open[record.step], record.public
    number, part = public["activation"], public["part"]
    made = Activation(number=number, parent=step.activation, step=record.step, part=part, round=public["round"])
    state.activations[number] = made
    state.owned.add(number)
    state.begun = number
    for name, value in record.private.get("outputs", {}).items():
        made.outputs[step.component_id, name] = value
        state.holdings.put((number, step.component_id, name), (kept[name], -number, name))
    if part == BODY:
        _give(graph, state, record.step, made)
    state.busy -= step.awaits is None
    until = public.get("until", step.until)
    state.open[record.step] = replace(step, awaits=IN_SCOPE, until=until)
    scope = state.own_scope(record.step)
    scope.live = (*scope.live, number)
    if part == BODY:
        scope.rounds = public["round"] + 1
    if "after" in record.private:
        scope.after = record.private["after"]
    failed = (step.component_id, "error") in made.outputs
    origin = step.component_id if failed else step.origin
    place(graph, state, made, graph.components[step.component_id].control.get(part, ()), 0, origin)


def _give(graph: Graph, state: ExecutionState, step: int, made: Activation) -> None:
    """Give a round of a body what it begins with."""
    id_ = state.open[step].component_id
    component, inputs, scope = scope_of(graph, id_), state.open[step].inputs, state.own_scope(step)
    if isinstance(component, Each) and scope.tally is None:
        scope.tally = Tally.of(component.plan(inputs))
    given = component.given(inputs, scope.value, made.round)
    for name, value in given.items():
        made.outputs[id_, name] = value
    version = state.holdings.current.get(_value_slot(step, id_)) if STATE in given else None
    if version is not None:
        state.holdings.put((made.number, id_, STATE), version)


def fold_exited(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    """An activation has ended: whatever was left in it is forgotten."""
    assert record.step is not None
    number = record.public["activation"]
    scope = state.own_scope(record.step)
    scope.live = tuple(other for other in scope.live if other != number)
    if "after" in record.private:
        scope.after = record.private["after"]
    if record.public["part"] == BODY:
        match scope_of(graph, state.open[record.step].component_id):
            case Loop() if "error" not in record.public:
                _take_round(state, record, kept)
            case Each():
                _take_item(state, record, kept)
    _remove(graph, state, number)
    close_if_left(graph, state, record.step)


def _take_round(state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    """A round of a loop has ended well: what it has given is the loop's state, and attempts count anew."""
    assert record.step is not None
    step = state.open[record.step]
    if step.failures:
        state.open[record.step] = replace(step, failures=0)
    outputs = record.private.get("outputs", {})
    if "value" in outputs:
        state.own_scope(record.step).value = outputs["value"]
        version = (kept["value"], -record.public["activation"], "value")
        state.holdings.put(_value_slot(record.step, step.component_id), version)


def fold_left(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    """An activation is left: only the scopes in it with something to do still are waited for."""
    fold_ending(graph, state, record.public["activation"], record)


def fold_ending(graph: Graph, state: ExecutionState, number: int, record: Record) -> None:
    """An activation is left, and will end as the record says."""
    activation = state.own(number)
    activation.ending = record.private["ending"]
    for name, value in record.private.get("outputs", {}).items():
        activation.ending = {**activation.ending, name: value}
    until = record.public.get("until")
    cut(graph, state, number)
    for step in steps_within(graph, state, number):
        if state.open[step].awaits == NEXT_ATTEMPT:  # There is none.
            state.open[step] = replace(state.open[step], awaits=IN_SCOPE, until=None)
        if until is not None and any(state.activations[live].part == FINALLY for live in state.scopes[step].live):
            state.open[step] = replace(state.open[step], until=until)
        close_if_left(graph, state, step)
    if not state.own(number).active:
        state.quiet[number] = None


def _take_item(state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    """An item has ended: what it has given is kept, or why it has failed."""
    assert record.step is not None
    tally, index = state.own_scope(record.step).tally, record.public["round"]
    assert tally is not None
    if "error" in record.public:
        tally.take_error(index, record.public["error"])
        return
    before, private = tally.memory, record.private
    value = private.get("outputs", {}).get("value")
    tally.take_result(index, value, tuple(private.get("size", (0, 0))), kept.get("value", 0))
    state.holdings.bytes += tally.memory - before


def cut(graph: Graph, state: ExecutionState, number: int) -> None:
    """Forget the tokens and end the steps in an activation and all below it, but for scopes, and all within a `finally`."""
    if not state.activations[number].tokens:
        return
    inside = dict.fromkeys(within(state, number))  # A set has an order too, but none that is told.
    state.ready = deque(token for token in state.ready if token[3] not in inside)
    for step, about in list(state.open.items()):
        if about.activation in inside and graph.components[about.component_id].kind is not ComponentKind.SCOPE:
            close_step(state, step)
            state.dropped.append(step)
    scopes = [about.activation for step, about in state.open.items() if about.activation in inside]
    for each in inside:
        activation = state.own(each)
        left = scopes.count(each)
        state.tokens -= activation.tokens - left
        activation.tokens = activation.active = left
        activation.joins.clear()
        activation.late.clear()
        if not left:
            state.quiet[each] = None


def _remove(graph: Graph, state: ExecutionState, number: int) -> None:
    """Forget an activation and all that is in it."""
    if state.activations[number].tokens:
        state.ready = deque(token for token in state.ready if token[3] != number)
        for step in [step for step, about in state.open.items() if about.activation == number]:
            if step in state.scopes:
                for live in state.scopes[step].live:
                    _remove(graph, state, live)
                forget_scope(state, step, state.open[step].component_id)
            close_step(state, step)
            state.dropped.append(step)
    ended = state.activations.pop(number)
    state.owned.discard(number)
    state.tokens -= ended.tokens
    state.quiet.pop(number, None)
    for output in ended.outputs:
        state.holdings.drop((number, *output))


def within(state: ExecutionState, number: int) -> Iterator[int]:
    """An activation and those below it, but for a `finally` and what is in it."""
    yield number
    for step, scope in state.scopes.items():
        if state.open[step].activation == number:
            for live in scope.live:
                if state.activations[live].part != FINALLY:
                    yield from within(state, live)


def steps_within(graph: Graph, state: ExecutionState, number: int) -> list[int]:
    """The open steps of scopes in an activation and all below it, likewise."""
    inside = set(within(state, number))
    return [step for step in state.scopes if state.open[step].activation in inside]


def close_if_left(graph: Graph, state: ExecutionState, step: int) -> None:
    """Close the step of a scope around which everything is left, once it has nothing to do any more."""
    about, scope = state.open[step], state.scopes[step]
    if scope.live or not (state.activations[about.activation].ending is not None or state.is_left(about.activation)):
        return
    finally_ = FINALLY in graph.components[about.component_id].control
    if finally_ and not (scope.after is not None and scope.after.get("finally")):
        return
    _, activation, _ = close_step(state, step)
    forget_scope(state, step, about.component_id)
    if not activation.active:
        state.quiet[activation.number] = None
