"""What a call may take, and which calls are made again: those that change nothing, and changes under a request id."""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message

from blobhub_client.errors import CallError

MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.1, 10.0


@dataclass(frozen=True)
class Policy:
    """What holds for calls that answer once, unless they are told otherwise."""

    call_seconds: float | None = 30.0
    """How long a call may take with all its attempts; None for no bound."""
    attempts: int = 5
    """How often one that is safe to repeat is made at most."""


class Backoff:
    """How long to wait before the next attempt: from 0.1 s to 10 s, with jitter, unless the server says how long."""

    def __init__(self) -> None:
        self._seconds = MIN_RETRY_SECONDS

    def reset(self) -> None:
        """Begin anew, because something has succeeded."""
        self._seconds = MIN_RETRY_SECONDS

    def next(self, told: float) -> float:
        """The next wait in seconds; `told` is what the server says, or 0."""
        jittered = self._seconds * random.uniform(0.5, 1)  # noqa: S311  jitter, no secret
        self._seconds = min(self._seconds * 2, MAX_RETRY_SECONDS)
        return told or jittered


class Retries:
    """Which failures are followed by another attempt, and when."""

    def __init__(self, attempts: int, deadline: float | None = None) -> None:
        """`attempts` are those that may be made in all; none begins after `deadline`, of the monotonic clock."""
        self._attempts, self._deadline = attempts, deadline
        self.reset()

    def reset(self) -> None:
        """Begin anew, because something has come."""
        self._left, self._backoff = self._attempts, Backoff()

    def wait(self, error: CallError, *, safe: bool = False) -> float:
        """How many seconds to wait before the next attempt, which follows temporary errors, and with `safe` any one.

        Raises the error where there is to be none.
        """
        self._left -= 1
        if self._left > 0 and (safe or error.is_temporary):
            delay = self._backoff.next(error.retry_seconds)
            if self._deadline is None or time.monotonic() + delay < self._deadline:
                return delay
        raise error


class Attempts:
    """The attempts of one call that answers once: what they send, how long they may take, and when there is another one."""

    def __init__(self, policy: Policy, path: str, request: Any, timeout: float | None = None) -> None:
        self.request, safe = repeatable(path, request)
        seconds = policy.call_seconds if timeout is None else timeout
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self.wait = Retries(policy.attempts if safe else 1, self._deadline).wait

    @property
    def timeout(self) -> float | None:
        """How many seconds are left to the next attempt."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0)


def repeatable(path: str, request: Any) -> tuple[Any, bool]:
    """What is sent for a request, and whether that may be sent again. A change gets a `request_id`, unless it has one."""
    method = _find(path)
    if method is None or not isinstance(request, Message):
        return request, False
    fields = method.input_type.fields_by_name
    if "request_id" not in fields:  # What is said under a lease of a task counts once.
        return request, "lease" in fields or method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
    sent: Any = type(request)()
    sent.CopyFrom(request)
    if sent.request_id:
        return request, True
    if "key" in method.output_type.fields_by_name:
        return request, False  # A new key is shown once: the answer to a repeated call would have none.
    sent.request_id = str(uuid.uuid4())
    return sent, True


@cache
def _find(path: str) -> MethodDescriptor | None:
    """A method by its path on the wire, `/blobhub.v1.BlobService/GetBlob`."""
    service, _, name = path.removeprefix("/").partition("/")
    try:
        found = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        return None
    return found.methods_by_name.get(name)
