"""Decides what follows from what happens to an execution. It is pure, so every engine gets the same decision.

An engine takes a happening in, makes the decision durable and performs its commands, whose results are the next happenings.
A decision that is thrown away has changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from blobhub_server.blobtypes import json_text
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter import (
    BUDGET,
    NO_TASKS,
    Command,
    ExecutionState,
    Happening,
    Record,
    Signalled,
    StopRequested,
    TaskTurn,
    Try,
    WaitChanges,
    advance,
    is_open,
    task_turn,
    todo,
    tries_over,
)
from blobhub_server.workflow.interpreter import needs as needs_of_turn
from blobhub_server.workflow.rules.child import child_ended
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.message import Message, MessageKind
from blobhub_server.workflow.rules.task import task_ended
from blobhub_server.workflow.runtime.rest import server_time, wake_time


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an execution has come: its record, and the state that it projects.

    `last_message` of the record is the number of the last message that was taken in.
    """

    execution: Execution
    state: ExecutionState


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows: the new progress, the records that lead to it, and the commands to perform once they are durable.

    The commands are those of the steps that something has happened to; those of other open steps stand as they were given.
    `messages` says how many messages are taken in, and `taken` how many of the happenings: those that are left are to happen
    again. `objects` says which session objects are written, by alias. `reads` names the session objects that it rests on:
    where one of them is another by the time that this is made durable, it is thrown away. `spent` is what of the budget it
    took, `logged` how many bytes the records add to the log. `waits` says which steps begin and end to wait for signals.
    `tasks` says what becomes of tasks of workers, `over` which tries at steps do not wait for what they have started.
    """

    progress: Progress
    records: Sequence[Record]
    commands: Sequence[Command]
    messages: int
    taken: int
    objects: Mapping[str, Any]
    reads: Set[str]
    spent: int
    logged: int
    waits: WaitChanges
    tasks: TaskTurn = NO_TASKS
    over: Sequence[Try] = ()


def happen(
    graph: Graph,
    progress: Progress,
    happenings: Sequence[Happening],
    *,
    now: float,
    session: Mapping[str, Any],
    messages: Sequence[Message] = (),
    budget: int = BUDGET,
    ahead: float = 0.0,
) -> Decision:
    """Take in messages and then happenings, one after the other, until the budget is spent; all of them where there is none.

    Messages come first, and all of them, because their senders have been answered already. `now` is unix time in seconds,
    `session` holds the session's objects that the graph touches, those that `needs` names at least. `budget` is how many
    components are evaluated in place at most. The clock that resting executions are woken by is `ahead` of `now`.
    """
    taken = [*map(_happening, messages), *happenings]
    least = len(messages) + 1 if budget else len(taken)
    turn = advance(graph, progress.state, taken, now=now, session=session, budget=budget, least=least)
    state = turn.state
    execution = replace(
        progress.execution,
        state=state.status,
        result=json_text.write(state.result).encode() if state.has_result else None,
        failure=state.error,
        last_execution_sequence=progress.execution.last_execution_sequence + len(turn.records),
        last_message=messages[-1].number if messages else progress.execution.last_message,
        recoveries=0,
        signals=len(state.signals),
        signal_bytes=state.signals.size_bytes,
        end_time=datetime.fromtimestamp(now, UTC) if state.ended else None,
        wake_time=wake_time(progress.execution, state, now, ahead),
        rest_time=server_time(now + ahead),
        adopted=False,
    )
    return Decision(
        progress=Progress(execution, state),
        records=turn.records,
        commands=todo(graph, state, now, turn.touched),
        messages=len(messages),
        taken=turn.taken - len(messages),
        objects=turn.written,
        reads=turn.reads,
        spent=turn.spent,
        logged=state.logged - progress.state.logged,
        waits=WaitChanges.between(progress.state, state, turn.touched),
        tasks=task_turn(graph, progress.state, state, turn.touched),
        over=tries_over(graph, progress.state, state, turn.touched),
    )


def needs(
    graph: Graph, progress: Progress, happenings: Sequence[Happening], messages: Sequence[Message]
) -> Sequence[frozenset[str]]:
    """The aliases of session objects that `happen` is to be given, in groups of which the first comes first."""
    if not graph.session_reads:
        return ()
    return needs_of_turn(graph, progress.state, [*map(_happening, messages), *happenings])


def has_open(progress: Progress, step: int, failures: int, place: tuple[int, int]) -> bool | None:
    """Whether a try at a step is open in an execution whose row has a fence and ends its log at a number, its `place`.

    None while the progress is behind that.
    """
    fence, last = place
    if fence != progress.execution.fence:
        return False
    return is_open(progress.state, step, failures) if last == progress.execution.last_execution_sequence else None


def decide_alike(first: Decision, execution: Execution) -> Decision:
    """The first decision on an execution that begins as another one does: with the same definition and the same inputs.

    The state is that of the other one: it is never changed in place.
    """
    begun = first.progress.execution
    own = replace(
        execution,
        state=begun.state,
        result=begun.result,
        failure=begun.failure,
        last_execution_sequence=begun.last_execution_sequence,
        end_time=begun.end_time,
    )
    return replace(first, progress=Progress(own, first.progress.state))


def _happening(message: Message) -> Happening:
    """The happening that a message stands for."""
    match message.kind:
        case MessageKind.STOP:
            return StopRequested()
        case MessageKind.SIGNAL:
            body = message.body
            return Signalled(name=body["name"], key=body["key"], value=body["value"], size_bytes=body["size"])
        case MessageKind.TASK:
            return task_ended(message.body)
        case MessageKind.CHILD:
            return child_ended(message.body)
