"""What is to be done in a state: the commands that a runtime performs."""

from __future__ import annotations

from collections.abc import Iterable

from blobhub_server.workflow.components.contract import ComponentKind
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter.records import Cancel, Command, GoOn, Halt, RunStep, Wait
from blobhub_server.workflow.interpreter.state import ExecutionState


def todo(graph: Graph, state: ExecutionState, now: float, steps: Iterable[int] | None = None) -> list[Command]:
    """The commands that a state asks for, none in a terminal one; of some steps only, where those are named.

    After a turn the commands of the steps that it has touched are new; those of all others have been given before. Recovery
    asks for all.
    """
    if state.phase == "stopping" and not state.running:
        return [Halt()]
    if not state.running:
        return []
    commands: list[Command] = [] if steps is None else [Cancel(step) for step in state.dropped]
    for number in sorted(state.open if steps is None else state.open.keys() & steps):
        step = state.open[number]
        node = graph.components[step.component_id]
        # What is evaluated in place has its next attempt in a turn, which its timer brings about, also when it is due.
        if step.awaits is not None and (step.waits(now) or node.kind in (ComponentKind.SCOPE, ComponentKind.TASK)):
            commands.append(Wait(step=number, attempt=step.attempt, awaits=step.awaits, until=step.until))
        elif node.kind is ComponentKind.EFFECT:
            commands.append(
                RunStep(
                    step=number,
                    attempt=step.attempt,
                    component_id=node.id,
                    inputs=step.inputs,
                    timeout=node.policy.timeout,
                    evaluated=step.evaluated if node.reread else None,
                    failures=step.failures,
                )
            )
    return [*commands, GoOn()] if state.runnable else commands
