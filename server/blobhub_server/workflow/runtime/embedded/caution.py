"""Keeps an execution that ends its server from ending one server after the other.

Whatever bounds evaluation has, something may hold the event loop for ever, or break the process. So a recovered execution
evaluates nothing before its row says that it is about to. What has happened (a step was interrupted, a time has come) is
journaled first, with the count; the next turn evaluates, and its commit sets the count back. A count that is found at the
next recovery says that the server went away in between.

An execution that waits, or whose steps are under way, has nothing to evaluate and is not counted, however often its server
is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from blobhub_server.workflow.interpreter import Failed, Happening
from blobhub_server.workflow.runtime.decision import Decision

MAX_RECOVERIES = 3
"""The recovery of this number, in a row that journaled nothing, fails an execution."""

POISONED = Failed("POISONED", "three times in a row the server went down when it went on with this execution")

Decide = Callable[[Sequence[Happening]], Decision]


def decide_with_caution(take_in: Decide, happenings: Sequence[Happening], recoveries: int) -> Decision:
    """Take happenings in by `take_in`, which evaluates nothing; count that what is ready is evaluated in the next turn.

    `recoveries` were counted before. The last one that there may be fails the execution instead, unless it has been stopped.
    """
    decision = take_in(happenings)
    if not decision.progress.state.runnable:
        return decision
    if recoveries + 1 >= MAX_RECOVERIES:
        return take_in([*happenings, POISONED])
    counted = replace(decision.progress.execution, recoveries=recoveries + 1)
    return replace(decision, progress=replace(decision.progress, execution=counted))
