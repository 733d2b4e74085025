"""Ids: UUIDv7, so that ids sort by the time they were made."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from datetime import datetime

Ids = Callable[[], str]

LAST = "ffffffff-ffff-ffff-ffff-ffffffffffff"
"""An id that no id is greater than."""
NOTHING = "00000000-0000-0000-0000-000000000000"
"""The id of nothing. It is looked up where there is no id, so that absent things cost the same statements as others."""


class _Noise:
    """Random bytes of the operating system, which is asked for some hundred ids at once: a call takes as long as an id."""

    def __init__(self) -> None:
        self._left = b""

    def __call__(self, count: int) -> bytes:
        if len(self._left) < count:
            self._left = os.urandom(4096)
        taken, self._left = self._left[:count], self._left[count:]
        return taken


class Uuid7:
    """Makes UUIDv7 strings (RFC 9562 §5.7), ascending within this process.

    48 bits of unix milliseconds, then a 12-bit counter (§6.2, method 1: it starts at random in each millisecond and
    moves to the next one when it is full), then 62 random bits.
    """

    def __init__(
        self,
        milliseconds: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        entropy: Callable[[int], bytes] | None = None,
    ) -> None:
        self._milliseconds = milliseconds
        self._entropy = entropy or _Noise()
        self._last = 0
        self._counter = 0

    def __call__(self) -> str:
        """The next id, 36 lower-case characters."""
        noise = int.from_bytes(self._entropy(10), "big")
        now = self._milliseconds()
        if now > self._last:
            self._last, self._counter = now, noise >> 69
        else:
            self._counter += 1
            if self._counter > 0xFFF:
                self._last, self._counter = self._last + 1, 0
        high = self._last << 16 | 0x7000 | self._counter
        low = 0x8000_0000_0000_0000 | noise & 0x3FFF_FFFF_FFFF_FFFF
        text = f"{high << 64 | low:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def first_id(instant: datetime) -> str:
    """The least id that is made at an instant: those made before it are less."""
    return str(uuid.UUID(int=int(instant.timestamp() * 1000) << 80))


def is_uuid(text: str) -> bool:
    """True for a UUID in its canonical form, lower case with hyphens."""
    return canonical_id(text) == text != ""


def canonical_id(text: str) -> str:
    """A UUID with hyphens, in either case (RFC 9562 §4), in its canonical form; empty for what is none."""
    try:
        made = str(uuid.UUID(text)) if len(text) == 36 else ""
    except ValueError:
        return ""
    return made if made == text.lower() else ""
