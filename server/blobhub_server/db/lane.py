"""The lane of long reads: how many run at once, and who waits for a turn.

To wait for a turn is no trouble of the storage, and is not reported as such.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from blobhub_server.turnstile import Party, Turnstile

CALL_READS = 4
"""How many long reads of calls run at once, so that short statements always find a connection."""
PATIENT_READS = 2
"""How many others run beside them: those of streams and of recovery, which no call keeps waiting."""
LONG_READS = CALL_READS + PATIENT_READS
"""How many connections the lane has; on SQLite each has a thread."""
MAX_WAITING = 128
"""How many reads of calls may wait for a turn."""


class Lane:
    """The turns of one database's long reads. They go round by party."""

    def __init__(self) -> None:
        self.calls = Turnstile(CALL_READS, max_waiting=MAX_WAITING)
        self.patient = Turnstile(PATIENT_READS)

    def turn(self, party: Party, *, patient: bool) -> AbstractAsyncContextManager[None]:
        """Wait for a turn, and have it until the block is left. Raises Overloaded when too many wait, unless `patient`."""
        return (self.patient if patient else self.calls).turn(party)
