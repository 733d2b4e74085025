"""Signals that came before a step waited for them: an execution's state keeps them in the order in which they came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blobhub_server.workflow.components.awaits import Await, AwaitKind


@dataclass(frozen=True, slots=True)
class KeptSignal:
    """A signal that no step has taken. `size_bytes` is its length as a message, `memory_bytes` what its value takes."""

    name: str
    key: str
    value: Any
    size_bytes: int
    memory_bytes: int


@dataclass(slots=True)
class KeptSignals:
    """The signals that are kept, by numbers that go up; their count and bytes are bounded where they come in."""

    kept: dict[int, KeptSignal] = field(default_factory=dict)
    size_bytes: int = 0

    def __len__(self) -> int:
        return len(self.kept)

    def copy(self) -> KeptSignals:
        """An independent copy."""
        return KeptSignals(kept=dict(self.kept), size_bytes=self.size_bytes)

    def clear(self) -> None:
        """Keep nothing any more."""
        self.kept.clear()
        self.size_bytes = 0

    def put(self, signal: KeptSignal) -> None:
        """Keep a signal behind all others."""
        self.kept[next(reversed(self.kept), 0) + 1] = signal
        self.size_bytes += signal.size_bytes

    def find(self, awaits: Await | None) -> KeptSignal | None:
        """The oldest signal that an await is for."""
        number = self._number(awaits)
        return None if number is None else self.kept[number]

    def take(self, awaits: Await | None) -> KeptSignal | None:
        """Remove and return the oldest signal that an await is for."""
        number = self._number(awaits)
        if number is None:
            return None
        taken = self.kept.pop(number)
        self.size_bytes -= taken.size_bytes
        return taken

    def _number(self, awaits: Await | None) -> int | None:
        if not self.kept or awaits is None or awaits.kind is not AwaitKind.SIGNAL:
            return None
        return next((number for number, signal in self.kept.items() if _is_for(awaits.details, signal)), None)


def _is_for(details: Mapping[str, Any], signal: KeptSignal) -> bool:
    return (details["name"], details["key"]) == (signal.name, signal.key)
