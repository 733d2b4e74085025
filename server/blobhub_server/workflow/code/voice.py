"""What one run of a script says before it ends: values that it emits, and text that it prints, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from blobhub_server.blobtypes import json_text
from blobhub_server.errors import InvalidValue

MAX_EMITTED = 1_000
MAX_EMITTED_BYTES = 4 << 20
"""All that one run emits, as JSON. It is kept in memory until the run has ended, or is in the log."""
MAX_PRINTED_BYTES = 64 << 10
CUT = f"\n[cut: a step prints at most {MAX_PRINTED_BYTES} bytes]\n"


class Voice:
    """Passes on what a run says, in order, on the event loop. Monty calls it from threads of its own."""

    def __init__(self, emit: Callable[[Any], None], write: Callable[[str], None]) -> None:
        self._emit = emit
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._emitted_bytes = 0
        self._printed_bytes = 0
        self.refusals: list[str] = []
        """Why values were refused, each as the script was told."""

    def emit(self, text: object) -> None:
        """Emit the value that a JSON text says. Raises ValueError in the script, which may handle it."""
        try:
            self._loop.call_soon_threadsafe(self._emit, self._value(text))
        except InvalidValue as error:
            self.refusals.append(f"an output {error.violations[0].message}")
            raise ValueError(self.refusals[-1]) from None

    def _value(self, text: object) -> Any:
        if not isinstance(text, str):
            raise InvalidValue("emitted", "must be JSON text")
        value, compact = json_text.parse("emitted", text)
        self._emitted_bytes += len(compact.encode())
        if self._emitted_bytes > MAX_EMITTED_BYTES:
            raise InvalidValue("emitted", f"must not take what a step emits beyond {MAX_EMITTED_BYTES} bytes as JSON in all")
        return value

    def write(self, _stream: str, text: str) -> None:
        """Print text. What is beyond the bound is dropped, and a note says so."""
        room = MAX_PRINTED_BYTES - self._printed_bytes
        if room < 0:
            return
        encoded = text.encode()
        self._printed_bytes += len(encoded)
        if len(encoded) > room:
            # Half a character may be left at the end of the bytes.
            text = encoded[:room].decode(errors="ignore") + CUT
            self._printed_bytes = MAX_PRINTED_BYTES + 1
        self._loop.call_soon_threadsafe(self._write, text)
