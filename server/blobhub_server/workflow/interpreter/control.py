"""How tokens move: from a step along the connections of a route, into joins, and out of scopes that are left."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from blobhub_server.workflow.components.contract import ComponentKind
from blobhub_server.workflow.definitions.graph import Graph, Node, Target
from blobhub_server.workflow.interpreter.activation import Activation
from blobhub_server.workflow.interpreter.state import ExecutionState, Step


def close_step(state: ExecutionState, number: int) -> tuple[Step, Activation, int]:
    """Take an open step and its token away; return it, its activation, and the marks of its token."""
    step = state.open.pop(number)
    state.holdings.leave(step.held)
    state.busy -= step.awaits is None
    state.tokens -= 1
    activation = state.own(step.activation)
    activation.active -= 1
    activation.tokens -= 1
    return step, activation, activation.late.pop(number, 0)


def place(
    graph: Graph, state: ExecutionState, activation: Activation, targets: Sequence[Target], late: int, origin: str
) -> None:
    """Place a token at every target, in order: all are placed before any join looks at them."""
    joins: list[Node] = []
    number, components = activation.number, graph.components
    activation.tokens += len(targets)
    state.tokens += len(targets)
    for target in targets:
        node = components[target.component_id]
        if node.kind is not ComponentKind.JOIN:
            state.ready.append((node.id, late, origin, number))
            activation.active += 1
            continue
        if not node.late_mark:
            activation.joins.put(node, target.connection_id, late, origin)
        joins.append(node)
    for join in joins:
        if join.late_mark:
            late = _arrive_first(state, activation, join, late, origin)
        elif merged := activation.joins.take(join):
            activation.tokens -= len(join.incoming) - 1
            state.tokens -= len(join.incoming) - 1
            state.ready.append((*merged, number))
            activation.active += 1
    if not activation.active:
        state.quiet[number] = None


def _arrive_first(state: ExecutionState, activation: Activation, join: Node, late: int, origin: str) -> int:
    """A token comes to a join of mode `first`, which fires or swallows it; return the marks of those placed beside it."""
    mark, here = join.late_mark, activation.number
    if late & mark:
        activation.tokens -= 1
        state.tokens -= 1
        return late
    state.ready = deque(
        (id_, marks | mark if there == here else marks, led, there) for id_, marks, led, there in state.ready
    )
    steps = [number for number, step in state.open.items() if step.activation == here]
    activation.late = {number: activation.late.get(number, 0) | mark for number in steps}
    activation.joins.mark_late(mark)
    state.ready.append((join.id, late, origin, here))
    activation.active += 1
    return late | mark
