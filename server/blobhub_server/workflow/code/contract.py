"""What a script runner does: `run(source, inputs, emit, write) → result`, within limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class ScriptResult:
    """How a script ended: its route, whether that ends the execution, and its data outputs, within the bounds of values."""

    route: str
    outputs: Mapping[str, Any]
    terminal: bool


class ScriptError(Exception):
    """A script failed.

    `reason` is SCRIPT_SYNTAX, SCRIPT_ERROR, SCRIPT_TIMEOUT, SCRIPT_MEMORY, SCRIPT_RECURSION, SCRIPT_OUTPUT or
    SCRIPT_CRASHED; `line` is the line of the script, from 1, when one is known.
    """

    def __init__(self, reason: str, message: str, line: int | None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.line = line


@dataclass(frozen=True, slots=True)
class ScriptFlaw:
    """Why a script cannot be read, and where, from 1; 0 when that is not known."""

    message: str
    line: int
    column: int


class ScriptRunner(Protocol):
    """Reads and runs scripts."""

    async def read(self, sources: Sequence[str]) -> dict[str, ScriptFlaw]:
        """The flaws of those scripts that cannot be run because they cannot be read. None of them is run."""

    async def run(
        self,
        source: str,
        inputs: Mapping[str, Any],
        *,
        emit: Callable[[Any], None],
        write: Callable[[str], None],
    ) -> ScriptResult:
        """Run a script with its inputs. Raises ScriptError.

        `emit` is called with values that it emits, within the bounds of values, and `write` with text that it prints, in
        order, on the event loop, before this returns.
        """
