"""When an execution has something to do: it rests while each of its open steps waits and nothing else is left to do."""

from __future__ import annotations

import math

from blobhub_server.workflow.interpreter.state import ExecutionState


def rests_until(state: ExecutionState, now: float) -> float | None:
    """The unix time at which the first await of an execution that rests ends, infinite where none ends by itself.

    None for one that does not rest. A step whose next attempt is due is run from then on, without a record.
    """
    if state.status != "waiting" or state.runnable:
        return None
    first = math.inf
    for step in state.open.values():
        if not step.waits(now):
            return None
        if step.until is not None and step.until < first:
            first = step.until
    return first
