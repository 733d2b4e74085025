"""Messages to running executions. They can be sent through any server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class MessageKind(StrEnum):
    """What is asked."""

    STOP = "stop"
    """That it stops. `body` is empty."""
    SIGNAL = "signal"
    """That a step goes on which waits for a signal. `body`: the signal's `name` and `key`, and its `value`, any JSON."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message to an execution. `number` counts the messages to it, from 1; `body` is JSON, by the kind."""

    execution_id: str
    number: int
    kind: MessageKind
    body: Mapping[str, Any] = field(default_factory=dict)
