"""Draining: the server says that it is going away, and streams end themselves."""

from __future__ import annotations

from collections.abc import Callable


class Drain:
    """Off until `start`; then streams are to end with ShuttingDown and the last number they sent."""

    def __init__(self) -> None:
        self.draining = False
        self._hooks: list[Callable[[], None]] = []

    def on_start(self, hook: Callable[[], None]) -> None:
        """Call `hook` when draining starts, to wake those who wait."""
        self._hooks.append(hook)

    def start(self) -> None:
        """Start draining."""
        self.draining = True
        for hook in self._hooks:
            hook()
