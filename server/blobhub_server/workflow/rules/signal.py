"""Signals that are kept for a blob until somebody waits for them, and waits for signals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

KEPT_FOR = timedelta(days=30)
"""How long a signal is kept for a blob in which nobody waits for it."""


@dataclass(frozen=True, slots=True)
class KeptSignal:
    """A signal by key that nobody has waited for yet. `value` is JSON text, `size` its length in bytes."""

    id: str
    blob_id: str
    name: str
    key: str
    value: str
    size: int
    create_time: datetime


@dataclass(frozen=True, slots=True)
class SignalWait:
    """A step of an execution that waits for a signal, since `create_time` and until `wake_time` at most."""

    execution_id: str
    step: int
    blob_id: str
    component_id: str
    name: str
    key: str
    create_time: datetime
    wake_time: datetime | None
