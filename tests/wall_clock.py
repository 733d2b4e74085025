"""A clock for servers under test that can be set ahead while they run."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from blobhub_server.clock import utc_now


@dataclass
class WallClock:
    """The machine's clock, set ahead by some time."""

    ahead: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        return utc_now() + self.ahead
