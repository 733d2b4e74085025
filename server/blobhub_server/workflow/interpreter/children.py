"""What a turn does about the executions that steps have started: which steps do not wait for theirs any more."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from blobhub_server.workflow.components.contract import EXECUTE
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter.state import ExecutionState

Try = tuple[int, int]
"""A step, and how many attempts at it had failed: each failure begins another try, which starts an execution of its own."""


def tries_over(graph: Graph, before: ExecutionState, after: ExecutionState, touched: Collection[int]) -> Sequence[Try]:
    """The tries that a turn from one state to another has ended, whatever they have started and whether that has ended.

    `touched` are the steps that something has happened to.
    """
    if not graph.has_children:
        return ()
    # A stop, and any end, changes all at once.
    steps = sorted({*touched, *after.dropped} & before.open.keys() if before.phase == after.phase else before.open)
    found = ((number, before.open[number]) for number in steps)
    own = ((number, step.failures) for number, step in found if graph.components[step.component_id].type == EXECUTE)
    return [each for each in own if not is_open(after, *each)]


def is_open(state: ExecutionState, step: int, failures: int) -> bool:
    """Whether a try at a step is open."""
    found = state.open.get(step)
    return state.running and found is not None and found.failures == failures
