"""The clock that everything is handed: a call that answers the time, aware and in UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The machine's time."""
    return datetime.now(UTC)
