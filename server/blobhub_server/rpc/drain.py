"""Draining: the server is shutting down, and streams end themselves."""

from __future__ import annotations

from collections.abc import Callable


class Drain:
    """Off until `start`. From then on streams end with ShuttingDown, which carries the last number they sent."""

    def __init__(self) -> None:
        self.draining = False
        self._hooks: list[Callable[[], None]] = []

    def on_start(self, hook: Callable[[], None]) -> None:
        """Call `hook` when draining starts, to wake waiting streams."""
        self._hooks.append(hook)

    def start(self) -> None:
        """Start draining."""
        self.draining = True
        for hook in self._hooks:
            hook()
