"""Streams that go on where they were when they were cut off, whichever client reads them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from blobhub_client.errors import CallError, LogGap, Unreachable
from blobhub_client.policy import Backoff

CONNECT_SECONDS = 15.0
"""How long a run or a watch tries to reach a server before it begins, unless told otherwise."""
KEEPALIVE = (("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000))
"""Pings detect dead connections."""


@dataclass(frozen=True)
class Reach:
    """Where the server is, and how long to try to get there."""

    address: str = "the channel's address"
    secure: bool = False
    connect_seconds: float = CONNECT_SECONDS
    reconnect_seconds: float | None = None

    def unreachable(self) -> Unreachable:
        """What is raised where no server answered in time."""
        hint = "does it speak TLS, with a certificate that is trusted?" if self.secure else "does it ask for TLS?"
        return Unreachable(
            f"no server answers at {self.address} within {self.connect_seconds:g} s; is one running there, and {hint}"
        )


class Position:
    """How far a stream was read. Its messages' one repeated field holds its items, which are numbered."""

    def __init__(self, number: str, after: int, reach: Reach, *, dense: bool) -> None:
        self.after = after
        """The number of the last item that was seen."""
        self._number, self._dense, self._reach = number, dense, reach
        self._backoff, self._heard = Backoff(), time.monotonic()

    @classmethod
    def of(cls, request: Message, reach: Reach, *, dense: bool | None = None) -> Position:
        """Where a Watch method's request begins. Only a plain `sequence` may have gaps, unless `dense` says otherwise."""
        field = after_field(request)
        number = field.removeprefix("after_")
        return cls(number, getattr(request, field), reach, dense=number != "sequence" if dense is None else dense)

    def take(self, message: Any) -> Iterator[Any]:
        """The items of the next message. Raises LogGap when one does not follow the one before it."""
        self._heard = time.monotonic()
        for item in items(message):
            found = getattr(item, self._number)
            if found <= self.after or (self._dense and found != self.after + 1):
                raise LogGap(f"{self._number} {found} came after {self.after}")
            self.after = found
            self._backoff.reset()
            yield item

    def wait(self, error: CallError) -> float:
        """How many seconds to wait before the stream is opened again after an error.

        Raises the error where that does not help, and Unreachable once nothing has come for long enough.
        """
        if not error.is_temporary:
            raise error
        limit = self._reach.reconnect_seconds
        if limit is not None and time.monotonic() - self._heard > limit:
            raise Unreachable(f"no server answers at {self._reach.address} any more: {error.details()}") from error
        return self._backoff.next(error.retry_seconds)


def after_field(request: Message) -> str:
    """The field of a Watch method's request that says after which item it begins."""
    return next(field.name for field in request.DESCRIPTOR.fields if field.name.startswith("after_"))


def changed(request: Any, **fields: Any) -> Any:
    """A copy of a message with other fields."""
    made = type(request)()
    made.CopyFrom(request)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def items(message: Any) -> Any:
    """What the one repeated field of a message holds."""
    field = next(field for field in message.DESCRIPTOR.fields if field.is_repeated)
    return getattr(message, field.name)
