"""The fold of records about scopes: activations that begin, that are left, and that end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace

from blobhub_server.workflow.components.awaits import IN_SCOPE, NEXT_ATTEMPT
from blobhub_server.workflow.components.contract import ComponentKind
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter.activation import BODY, FINALLY, Activation
from blobhub_server.workflow.interpreter.control import close_step, place
from blobhub_server.workflow.interpreter.records import Record
from blobhub_server.workflow.interpreter.state import ExecutionState


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


def fold_exited(graph: Graph, state: ExecutionState, record: Record, kept: Mapping[str, int]) -> None:
    """An activation has ended: whatever was left in it is forgotten."""
    assert record.step is not None
    number = record.public["activation"]
    scope = state.own_scope(record.step)
    scope.live = tuple(other for other in scope.live if other != number)
    if "after" in record.private:
        scope.after = record.private["after"]
    _remove(graph, state, number)
    close_if_left(graph, state, record.step)


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


def cut(graph: Graph, state: ExecutionState, number: int) -> None:
    """Forget the tokens and end the steps in an activation and all below it, but for scopes, and all within a `finally`."""
    if not state.activations[number].tokens:
        return
    inside = set(within(state, number))
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
            for live in state.scopes[step].live if step in state.scopes else ():
                _remove(graph, state, live)
            state.scopes.pop(step, None)
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
    del state.scopes[step]
    if not activation.active:
        state.quiet[activation.number] = None
