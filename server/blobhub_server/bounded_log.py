"""Log lines that others can cause, and that therefore come in bounded numbers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable
from typing import Any

import structlog

MAX_LINES = 30
"""How many lines of one key are written in a window."""
WINDOW_SECONDS = 60.0


class BoundedLog:
    """Writes lines of one event: of each key at most thirty a minute, and then one line that says how many there were more.

    Keys must be few, because each has a window: a method and a reason, and nothing that callers choose.
    """

    def __init__(self, event: str, *, max_lines: int = MAX_LINES, window_seconds: float = WINDOW_SECONDS) -> None:
        # Bound once, because structlog's lazy loggers bind anew for each line, also for lines that are not written.
        self._log = structlog.get_logger().bind()
        self._event = event
        self._max_lines = max_lines
        self._window_seconds = window_seconds
        self._lines: Counter[Hashable] = Counter()

    def write(self, level: str, key: Hashable, **said: Any) -> None:
        """Write a line, or count it."""
        if key not in self._lines:
            asyncio.get_running_loop().call_later(self._window_seconds, self._close, level, key)
        self._lines[key] += 1
        if self._lines[key] <= self._max_lines:
            getattr(self._log, level)(self._event, **said)

    def _close(self, level: str, key: Hashable) -> None:
        """End a key's window, and say how many lines were left out in it."""
        more = self._lines.pop(key) - self._max_lines
        if more > 0:
            about = " ".join(map(str, key)) if isinstance(key, tuple) else str(key)
            getattr(self._log, level)(f"{self._event}_more", about=about, count=more)
