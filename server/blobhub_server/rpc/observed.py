"""One call as the pipeline sees it: its way to the gate, its line in the log, and the status that it ends with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from blobhub_server.bounded_log import BoundedLog
from blobhub_server.db.trouble import Trouble
from blobhub_server.errors import StorageUnavailable, UndecodableRequest, is_panic
from blobhub_server.rpc.arriving import Arriving, Decode, Weigh
from blobhub_server.rpc.call_counts import MethodCounts
from blobhub_server.rpc.errors import status_of, to_blobhub_error
from blobhub_server.rpc.gate import Admission, Gate
from blobhub_server.rpc.guard import Guard
from blobhub_server.rpc.open_streams import OpenStreams
from blobhub_server.rpc.room import LARGE_BYTES, NOBODY, Room
from blobhub_server.rpc.under_way import UnderWay
from blobhub_server.rpc.validation import validate
from blobhub_server.turnstile import off_loop

SMALL_BYTES = 16 << 10
"""Nobody waits for a request of so many bytes to be decoded, so it does not matter whose it is."""

TROUBLE = frozenset({"INTERNAL", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DATA_LOSS"})
"""Codes that an operator may have to do something about."""

UNKNOWN_METHOD = "(unknown)"
"""What is logged for a method that does not exist: its name is anything that a client likes."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """What the calls of one method share."""

    method: str
    gate: Gate
    guard: Guard
    trouble: Trouble
    log: Any
    refusals: BoundedLog
    room: Room
    streams: OpenStreams
    under_way: UnderWay
    decode: Decode
    weigh: Weigh
    request_seconds: float
    counts: MethodCounts


async def unless_gone(sending: Awaitable[None]) -> None:
    """Send something. When the client has gone, gRPC raises an InternalError; that is a cancellation."""
    try:
        await sending
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None


async def _abort(context: Any, status: grpc.StatusCode, message: str, trailers: Any) -> None:
    """End a call with a status. Raises AbortError, as gRPC wants it.

    gRPC keeps that error with the call. Its traceback and context lead to frames that hold the call, and a request of up to
    4 MiB, which would be there until a full collection; so they are cut off once the error has gone up.
    """
    try:
        await unless_gone(context.abort(status, message, trailers))
    except grpc.aio.AbortError as kept:
        asyncio.get_running_loop().call_soon(_forget_frames, kept)
        raise


def _forget_frames(error: grpc.aio.AbortError) -> None:
    error.__traceback__ = error.__context__ = None


class Observed:
    """Logs one call, and turns what it raises into a status. Cancellation passes through unchanged."""

    __slots__ = ("_admission", "_arriving", "_context", "_entrance", "_handled", "_start", "_weight", "request_bytes")

    def __init__(self, entrance: Entrance, context: Any) -> None:
        self._entrance = entrance
        self._context = context
        self._start = time.perf_counter()
        entrance.counts.started += 1
        self._admission: Admission | None = None
        self._handled = False
        self.request_bytes = 0
        """The bytes that the request which was read last came in."""
        self._weight = 0
        self._arriving: Arriving | None = None

    async def __aenter__(self) -> Self:
        return self

    async def first(self, request: bytes | Arriving) -> Message:
        """The one request of a call, or the first of a stream. Raises what `Arriving.first` raises."""
        if isinstance(request, Arriving):
            self._arriving = request
            first = await request.first()
            self.request_bytes, self._weight = request.size, request.weight
            return first
        self.request_bytes, self._weight = len(request), self._entrance.weigh(request)
        if len(request) <= LARGE_BYTES:
            await self._leave_room()
        sender = (
            self._entrance.gate.known_sender(self._context.invocation_metadata()) if len(request) > SMALL_BYTES else None
        )
        return await self._entrance.decode(request, (sender or NOBODY).party)

    async def arrive(self, request: Any) -> Admission:
        """Take the call to the gate: find its caller, then validate its first request.

        Raises Unauthenticated, InvalidRequest.
        """
        metadata = self._context.invocation_metadata()
        admission = self._entrance.gate.arrive(self._entrance.method, request, metadata)
        self._admission = admission
        await admission.identify()
        # Going over 700,000 empty messages takes 20 ms.
        party = admission.sender(self._context.peer()).party
        await off_loop(self._weight, party, partial(validate, request))
        return admission

    async def begin(self) -> None:
        """Note that the handler of an admitted call begins now. It may take hours, so the call leaves the room."""
        self._handled = True
        await self._leave_room()

    async def _leave_room(self) -> None:
        if self._arriving is not None:
            await self._arriving.leave()
        else:
            self._entrance.room.leave(asyncio.current_task())

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        log = self._entrance.log
        if error is None:
            self._entrance.counts.end("OK", time.perf_counter() - self._start)
            self._log(log.debug, "OK")
        elif isinstance(error, grpc.aio.AbortError):
            self._log_refusal(self._context.code().name)
        elif isinstance(error, Exception) or is_panic(error):
            raised = to_blobhub_error(error, self._entrance.method)
            if isinstance(raised, StorageUnavailable):
                self._entrance.trouble.report(raised)
            status, message, trailers = status_of(raised)
            self._log_refusal(status.name, raised.reason)
            if self._admission is not None and not isinstance(raised, UndecodableRequest):
                await self._admission.record_failure(raised, handled=self._handled)
            await _abort(self._context, status, message, trailers)
        else:
            self._log_refusal("CANCELLED")

    def _log(self, write: Callable[..., Any], code: str) -> None:
        write("call", method=self._entrance.method, code=code, ms=self._took())

    def _took(self) -> float:
        """The milliseconds since the call came."""
        return round((time.perf_counter() - self._start) * 1000, 2)

    def _log_refusal(self, code: str, reason: str = "") -> None:
        """Count and log a call that was not answered: why, and whose it was. Nothing of what was sent."""
        self._entrance.counts.end(code, time.perf_counter() - self._start)
        peer = self._context.peer()
        sender = self._admission.sender(peer) if self._admission is not None else None
        self._entrance.refusals.write(
            "warning" if code in TROUBLE else "info",
            (self._entrance.method, reason or code),
            method=self._entrance.method,
            code=code,
            reason=reason,
            caller=sender.name if sender is not None and sender.known else "",
            peer=peer,
            ms=self._took(),
        )
