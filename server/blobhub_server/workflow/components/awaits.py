"""What a component may wait for in place of an outcome.

An await is data in the state of its step. One kind of happening ends any await: a completion. It comes from the clock when
the await's time has come, else from whatever the await is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class AwaitKind(StrEnum):
    """What is waited for."""

    TIME = "time"
    """That a span of time passes."""
    ATTEMPT = "attempt"
    """That it is time for the next attempt at the step."""
    SIGNAL = "signal"
    """A signal. `details`: its `name` and `key`, both texts. One that came before is taken at once."""
    SCOPE = "scope"
    """What is inside of the scope that the step is of; until its time, the attempt may go on."""
    TASK = "task"
    """That a worker ends a task. `details`: the name of its `queue`. Where its time comes first, the step fails."""
    CHILD = "child"
    """That another execution ends. `details`: its `execution_id`, and the `session_id` and `blob_id` that it is in. Where
    the time comes first, the step fails."""


@dataclass(frozen=True, slots=True)
class Await:
    """What is waited for, and for how long.

    At the unix time `until`, or after `seconds`, the step ends with the route `expiry`; never where both are None. `details`
    is JSON, by the kind.
    """

    kind: AwaitKind
    seconds: float | None
    expiry: str
    details: Mapping[str, Any] = field(default_factory=dict)
    until: float | None = None

    def end(self, now: float) -> float | None:
        """The unix time at which an await that begins now ends; None for never."""
        if self.until is not None:
            return self.until
        return None if self.seconds is None else now + self.seconds

    def same_as(self, other: Await | None) -> bool:
        """Whether both wait for the same thing, for any length of time."""
        return other is not None and (self.kind, self.details) == (other.kind, other.details)

    def to_json(self) -> dict[str, Any]:
        """The await as JSON."""
        made = {"kind": self.kind.value, "seconds": self.seconds, "expiry": self.expiry, "details": self.details}
        return made if self.until is None else made | {"until": self.until}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Await:
        """The await that a JSON object stands for."""
        return cls(
            kind=AwaitKind(content["kind"]),
            seconds=content["seconds"],
            expiry=content["expiry"],
            details=content["details"],
            until=content.get("until"),
        )


NEXT_ATTEMPT = Await(kind=AwaitKind.ATTEMPT, seconds=None, expiry="")
"""Its time comes from the step's retry policy. The step is run again after it, so it has no route."""


IN_SCOPE = Await(kind=AwaitKind.SCOPE, seconds=None, expiry="")
"""A scope's step is ended by what happens inside."""


def time(seconds: float) -> Await:
    """Wait so many seconds, then go on with `next`."""
    return Await(kind=AwaitKind.TIME, seconds=seconds, expiry="next")


def instant(until: float) -> Await:
    """Wait until a unix time, then go on with `next`; at once where it has passed."""
    return Await(kind=AwaitKind.TIME, seconds=None, expiry="next", until=until)


RECEIVED = "received"
"""The route of a step whose signal has come; the data output `value` is what came with it."""


def signal(name: str, key: str, timeout: float | None = None) -> Await:
    """Wait for a signal and go on with `received`; after `timeout` seconds without it go on with `timeout`."""
    return Await(kind=AwaitKind.SIGNAL, seconds=timeout, expiry="timeout", details={"name": name, "key": key})


def task(queue: str, timeout: float | None = None) -> Await:
    """Wait for a worker to end a task on a queue; after `timeout` seconds without that fail."""
    return Await(kind=AwaitKind.TASK, seconds=timeout, expiry="", details={"queue": queue})


def child(*, execution_id: str, session_id: str, blob_id: str, timeout: float | None = None) -> Await:
    """Wait for the end of an execution that the step has started; after `timeout` seconds without that fail."""
    details = {"execution_id": execution_id, "session_id": session_id, "blob_id": blob_id}
    return Await(kind=AwaitKind.CHILD, seconds=timeout, expiry="", details=details)
