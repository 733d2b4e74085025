"""What one transaction takes: the times of some locked schedules, and what becomes of each.

The order of locks is schedules by id, what a target locks when it is invoked, executions to stop, the numbers of firings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from blobhub_server.background import Turns
from blobhub_server.blobtypes.capabilities import Invocable, Invocation, InvocationResult
from blobhub_server.blobtypes.expressions import ExpressionError
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import PermissionDenied
from blobhub_server.ids import Ids
from blobhub_server.scheduler.engine import firings
from blobhub_server.scheduler.engine.firings import Armed
from blobhub_server.scheduler.rules.document import Overlap
from blobhub_server.scheduler.rules.firing import Firing, FiringKind


@dataclass(frozen=True, slots=True)
class Take:
    """Collects what becomes of times, does it, and holds the firings that tell of it.

    `running` holds the executions that have not ended, by the ids of their firings. `broken` says that an unforeseen error
    ended the transaction before: now nothing is invoked, and that is what the firings tell.
    """

    ids: Ids
    now: datetime
    running: Mapping[str, InvocationResult]
    broken: bool
    told: list[Firing] = field(default_factory=list)
    to_invoke: list[tuple[Armed, Firing]] = field(default_factory=list)
    to_stop: list[tuple[Armed, Firing]] = field(default_factory=list)
    queued: list[str] = field(default_factory=list)

    def new_firing(self, armed: Armed, kind: FiringKind, nominal_time: datetime) -> Firing:
        """A firing of which nothing is known yet."""
        return armed.new_firing(self.ids(), kind, nominal_time, self.now)

    def is_running(self, armed: Armed) -> bool:
        """Whether what the schedule has started last has not ended."""
        return armed.schedule.running_firing_id in self.running

    def is_free(self, armed: Armed) -> bool:
        """Whether a time may fire now, as far as the overlap policy goes."""
        waiting = armed.schedule.queued_nominal_time is not None
        return armed.document.overlap_policy is Overlap.ALLOW or not (waiting or self.is_running(armed))

    def fire(self, armed: Armed, firing: Firing) -> None:
        """Have a time fire, unless the overlap policy says otherwise."""
        if self.is_free(armed):
            self.to_invoke.append((armed, firing))
            return
        match armed.document.overlap_policy:
            case Overlap.SKIP:
                self.told.append(firings.overlapping(firing))
            case Overlap.QUEUE_ONE if armed.schedule.queued_nominal_time is not None:
                message = "another time waits already for the end of an execution of the schedule"
                self.told.append(firings.skipped(firing, firings.QUEUE_FULL, message))
            case Overlap.QUEUE_ONE:
                self._queue(armed, firing)
            case Overlap.STOP_RUNNING:
                self._supersede(armed, firing)

    def _queue(self, armed: Armed, firing: Firing) -> None:
        armed.schedule.queued_kind, armed.schedule.queued_nominal_time = firing.kind, firing.nominal_time
        self.queued.append(firing.schedule_id)

    def _supersede(self, armed: Armed, firing: Firing) -> None:
        """Queue a time in the place of the one that waits, if one does, and stop what runs."""
        older = take_queued(armed)
        if older is not None:
            message = "a later time came before the execution that it waited for had ended"
            told = firings.skipped(self.new_firing(armed, *older), firings.SUPERSEDED, message)
            self.told.append(told)
        self._queue(armed, firing)
        if self.is_running(armed):
            self.to_stop.append((armed, firing))

    async def perform(self, tx: Transaction, invocable: Invocable) -> None:
        """Invoke and stop what is to be, each refusal being told by its firing."""
        await self._invoke(tx, invocable)
        for armed, firing in sorted(self.to_stop, key=lambda item: self._running(item[0]).execution_id):
            try:
                await invocable.stop(tx, self._running(armed).cause, firing.actor_id)
            except PermissionDenied as error:
                take_queued(armed)
                self.told.append(firings.refused(firing, error))

    async def _invoke(self, tx: Transaction, invocable: Invocable) -> None:
        invocations, turns = [], Turns()
        for armed, firing in self.to_invoke:
            invocation = self._invocation(armed, firing)
            if isinstance(invocation, Firing):
                self.told.append(invocation)
            else:
                invocations.append(invocation)
            await turns.pause()
        answers = await invocable.invoke_all(tx, invocations) if invocations else {}
        for armed, firing in self.to_invoke:
            await turns.pause()
            answer = answers.get(firing.id)
            if isinstance(answer, InvocationResult):
                if answer.end_time is None:
                    armed.schedule.running_firing_id = firing.id
                self.told.append(firings.started(firing, answer))
            elif answer is not None:
                self.told.append(firings.refused(firing, answer))

    def _invocation(self, armed: Armed, firing: Firing) -> Invocation | Firing:
        """What a firing invokes, or the firing that tells why there is nothing to invoke."""
        if self.broken:
            return firings.broken(firing)
        try:
            return armed.invocation(firing)
        except ExpressionError as error:
            return firings.refused(firing, error)

    def _running(self, armed: Armed) -> InvocationResult:
        assert armed.schedule.running_firing_id is not None, "something of it runs"
        return self.running[armed.schedule.running_firing_id]


def take_queued(armed: Armed) -> tuple[FiringKind, datetime] | None:
    """Take the time that waits for the end of an execution from its schedule; None when there is none."""
    schedule = armed.schedule
    if schedule.queued_kind is None or schedule.queued_nominal_time is None:
        return None
    waiting = FiringKind(schedule.queued_kind), schedule.queued_nominal_time
    schedule.queued_kind = schedule.queued_nominal_time = None
    return waiting
