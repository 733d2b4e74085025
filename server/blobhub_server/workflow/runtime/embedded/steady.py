"""The time that the timers of an execution go by."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from blobhub_server.clock import Clock


class SteadyClock:
    """A clock that begins with the wall clock, or with `not_before` where that is later, and goes on by the monotonic clock.

    Times are unix times in seconds. A wall clock that is set while the server runs makes no timer early or late. One that
    was set back before a restart makes nothing wait longer: `not_before` is the last time that was journaled.
    """

    def __init__(self, clock: Clock, monotonic: Callable[[], float], not_before: float) -> None:
        self._monotonic = monotonic
        self._zero = max(clock().timestamp(), not_before) - monotonic()

    @classmethod
    def going_on(cls, now: float, monotonic: Callable[[], float]) -> SteadyClock:
        """A clock that says `now` and goes on from there."""
        return cls(lambda: datetime.fromtimestamp(now, UTC), monotonic, now)

    def now(self) -> float:
        """The time."""
        return self._zero + self._monotonic()
