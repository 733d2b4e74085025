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
    """A signal. `details`: its `name` and `key`, both texts."""
    SCOPE = "scope"
    """What is inside of the scope that the step is of; until its time, the attempt may go on."""


@dataclass(frozen=True, slots=True)
class Await:
    """What is waited for, and for how long.

    After `seconds` (None: never) the step ends with the route `expiry`. `details` is JSON, by the kind.
    """

    kind: AwaitKind
    seconds: float | None
    expiry: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def same_as(self, other: Await | None) -> bool:
        """Whether both wait for the same thing, for any length of time."""
        return other is not None and (self.kind, self.details) == (other.kind, other.details)

    def to_json(self) -> dict[str, Any]:
        """The await as JSON."""
        return {"kind": self.kind.value, "seconds": self.seconds, "expiry": self.expiry, "details": self.details}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Await:
        """The await that a JSON object stands for."""
        return cls(
            kind=AwaitKind(content["kind"]), seconds=content["seconds"], expiry=content["expiry"], details=content["details"]
        )


NEXT_ATTEMPT = Await(kind=AwaitKind.ATTEMPT, seconds=None, expiry="")
"""Its time comes from the step's retry policy. The step is run again after it, so it has no route."""


IN_SCOPE = Await(kind=AwaitKind.SCOPE, seconds=None, expiry="")
"""A scope's step is ended by what happens inside."""


def time(seconds: float) -> Await:
    """Wait so many seconds, then go on with `next`."""
    return Await(kind=AwaitKind.TIME, seconds=seconds, expiry="next")


RECEIVED = "received"
"""The route of a step whose signal has come; the data output `value` is what came with it."""


def signal(name: str, key: str, timeout: float | None = None) -> Await:
    """Wait for a signal and go on with `received`; after `timeout` seconds without it go on with `timeout`."""
    return Await(kind=AwaitKind.SIGNAL, seconds=timeout, expiry="timeout", details={"name": name, "key": key})
