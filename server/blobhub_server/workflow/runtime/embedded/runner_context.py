"""What the runners of a server share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database
from blobhub_server.workflow.runtime.decision import Progress
from blobhub_server.workflow.runtime.embedded.journal import Journal
from blobhub_server.workflow.runtime.embedded.object_locks import ObjectLocks
from blobhub_server.workflow.runtime.embedded.state_memory import StateMemory
from blobhub_server.workflow.runtime.embedded.steady import SteadyClock
from blobhub_server.workflow.runtime.embedded.turn_taking import TurnTaking
from blobhub_server.workflow.runtime.performer import Performer
from blobhub_server.workflow.runtime.rest import runner_time


@dataclass(frozen=True, slots=True)
class RunnerContext:
    """What all executions of a server share. By `server_now` those are woken that rest."""

    db: Database
    journal: Journal
    clock: Clock
    performer: Performer
    object_locks: ObjectLocks = field(default_factory=ObjectLocks)
    monotonic: Callable[[], float] = time.monotonic
    turns: TurnTaking = field(default_factory=TurnTaking)
    memory: StateMemory = field(default_factory=StateMemory)
    server_now: Callable[[], float] = time.time

    def clock_of(self, progress: Progress, journaled: float) -> SteadyClock:
        """The clock of an execution whose last record was made at the time `journaled`."""
        now = runner_time(progress.execution, progress.state, self.server_now())
        if now is not None:
            return SteadyClock.going_on(now, self.monotonic)
        return SteadyClock(self.clock, self.monotonic, max(progress.execution.create_time.timestamp(), journaled))
