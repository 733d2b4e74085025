"""Which steps wait for signals: what of a state others have to find, to bring the signals to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from blobhub_server.workflow.components.awaits import AwaitKind
from blobhub_server.workflow.interpreter.state import ExecutionState, Step


@dataclass(frozen=True, slots=True)
class WaitChanges:
    """The steps that a turn has had begin to wait for a signal, and those that do not wait for theirs any more."""

    begun: Mapping[int, Step] = field(default_factory=dict)
    ended: Sequence[int] = ()

    @classmethod
    def between(cls, before: ExecutionState, after: ExecutionState, touched: Collection[int]) -> WaitChanges:
        """What a turn has changed that has touched some steps, and given up others with the scopes they were in."""
        # A stop, and any end, changes all at once: what an execution waits for does not count from then on.
        steps = {*touched, *after.dropped} if before.phase == after.phase else None
        was, now = _waiting(before, steps), _waiting(after, steps)
        begun = {number: step for number, step in now.items() if number not in was or was[number].awaits != step.awaits}
        return cls(begun=begun, ended=[number for number in was if number not in now or number in begun])


def _waiting(state: ExecutionState, steps: Collection[int] | None) -> Mapping[int, Step]:
    if state.phase != "running":
        return {}
    found = state.open if steps is None else {number: state.open[number] for number in steps if number in state.open}
    return {number: step for number, step in found.items() if _waits(step)}


def _waits(step: Step) -> bool:
    return step.awaits is not None and step.awaits.kind is AwaitKind.SIGNAL
