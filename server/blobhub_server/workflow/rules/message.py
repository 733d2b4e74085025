"""Messages to running executions. They can be sent through any server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from blobhub_server.errors import LimitExceeded

MAX_SIGNALS, MAX_BYTES = 1_000, 4 << 20
"""How many signals, and of how many bytes together, wait in one execution: in its inbox, or for a step that takes them. A
stop, of which each execution gets one, is always taken."""


class MessageKind(StrEnum):
    """What is asked."""

    STOP = "stop"
    """That it stops. `body` is empty."""
    SIGNAL = "signal"
    """That a step goes on which waits for a signal. `body`: the signal's `name` and `key`, its `value`, any JSON, and the
    `size` of all that as JSON."""
    TASK = "task"
    """That a step goes on whose task has ended. `body` is as `rules/task.py` says."""
    CHILD = "child"
    """That an execution has ended, or was deleted, which a step has started. `body` is as `rules/child.py` makes it."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message to an execution. `number` counts the messages to it, from 1; `body` is JSON, by the kind."""

    execution_id: str
    number: int
    kind: MessageKind
    body: Mapping[str, Any] = field(default_factory=dict)


def require_room(execution_id: str, count: int, size: int) -> None:
    """Raise LimitExceeded when `count` signals of `size` bytes, the new one included, are too many for an execution."""
    if count > MAX_SIGNALS:
        raise LimitExceeded("execution.signals", MAX_SIGNALS, execution_id)
    if size > MAX_BYTES:
        raise LimitExceeded("execution.signal_bytes", MAX_BYTES, execution_id)
