"""Which session objects a turn needs: those of the step that is entered next, and of the steps that something ends.

All others that its graph reads may be left unread where they are large, so that a turn takes no more memory than its steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from blobhub_server.workflow.components.awaits import signal
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter.records import ChildEnded, Completion, Happening, Signalled, TaskEnded
from blobhub_server.workflow.interpreter.state import ExecutionState


def needs(graph: Graph, state: ExecutionState, happenings: Iterable[Happening]) -> Sequence[frozenset[str]]:
    """The aliases of session objects that a turn needs: first of the next component, then of each happening."""
    if not graph.session_reads or not state.running:
        return ()
    found = [graph.components[state.ready[0][0]].session_needs] if state.ready else []
    for happening in happenings:
        match happening:
            case Completion() | TaskEnded() | ChildEnded():
                found.append(needs_of_end(graph, state, happening.step))
            case Signalled(name, key):  # Several may come for the steps that wait for it.
                found += (needs_of_end(graph, state, step) for step in waiting_steps(state, name, key))
    return [aliases for aliases in found if aliases]


def needs_of_end(graph: Graph, state: ExecutionState, step: int) -> frozenset[str]:
    """The aliases of session objects that the end of a step rests on: those it was run on, and those it changes in place."""
    about = state.open.get(step)
    if about is None:
        return frozenset()
    node = graph.components[about.component_id]
    return node.session_changes.union(node.reread)


def waiting_steps(state: ExecutionState, name: str, key: str) -> Iterator[int]:
    """The steps that wait for a signal, in their order."""
    if state.running:
        awaited = signal(name, key)
        yield from (number for number, step in state.open.items() if awaited.same_as(step.awaits))
