"""How long an execution rests, as its row says: until then nothing of it has to be in memory.

Its awaits go by the clock of its runner, and its row by the clock of the server that owns it, from which the runner's may
differ: it begins at the last time that was journaled, where the wall clock is behind that.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from operator import itemgetter

from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter import Completion, ExecutionState, Happening, TimedOut, Wait, rests_until, todo
from blobhub_server.workflow.rules.execution import ACTIVE, NEVER, Execution

_NEVER = NEVER.timestamp()


def wake_time(execution: Execution, state: ExecutionState, now: float, ahead: float) -> datetime:
    """When an execution has something to do, by the clock of its server, which is `ahead` of the runner's."""
    until = _first(execution, state, now)
    return ACTIVE if until is None else server_time(until + ahead)


def server_time(seconds: float) -> datetime:
    """The time of a server's clock as rows have it."""
    return NEVER if seconds >= _NEVER else datetime.fromtimestamp(seconds, UTC)


def runner_time(execution: Execution, state: ExecutionState, server_now: float) -> float | None:
    """What the clock of the runner of an execution says that has rested until now; None where its row does not tell.

    It has gone on meanwhile, so that what the execution waits for is neither early nor late where the wall clock was set.
    """
    if not execution.rests or execution.wake_time == NEVER:
        return None
    until = _first(execution, state, -math.inf)
    return None if until is None or until == math.inf else until + server_now - execution.wake_time.timestamp()


def deadline(execution: Execution) -> float:
    """The unix time at which an execution has taken as long as it may, infinite where it may take for ever."""
    return math.inf if execution.timeout is None else (execution.create_time + execution.timeout).timestamp()


def come_due(graph: Graph, execution: Execution, state: ExecutionState, now: float) -> tuple[list[Happening], list[Wait]]:
    """What has come due of an execution that rests, in its order in time, and what it still waits for."""
    waits = [command for command in todo(graph, state, -math.inf) if isinstance(command, Wait)]
    due: list[tuple[float, Happening]] = [
        (wait.until, Completion(step=wait.step, attempt=wait.attempt))
        for wait in waits
        if wait.until is not None and wait.until <= now
    ]
    if (end := deadline(execution)) <= now:
        due.append((end, TimedOut()))
    left = [wait for wait in waits if wait.until is None or wait.until > now]
    return [happening for _, happening in sorted(due, key=itemgetter(0))], left


def _first(execution: Execution, state: ExecutionState, now: float) -> float | None:
    until = rests_until(state, now)
    return None if until is None else min(until, deadline(execution))
