"""What every call goes through, in this order: log, errors, form of the key, decode, identify the caller, validate, admit
(the remembered answer, or authorization), guard, handler. So which error wins never depends on what there is.

One interceptor does it for all four kinds of RPC. Handlers are wrapped once per method, not once per call. They get the
request, or the stream of requests, and the call that the gate made of it; gRPC's context stays here. Each is wrapped twice:
a call with one request is handed it by gRPC, or, when many requests are under way, waits for its turn and reads it itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, Protocol, Self

import grpc
import structlog
from google.protobuf.message import Message

from blobhub_server.db.trouble import Trouble
from blobhub_server.errors import (
    BlobHubError,
    StorageUnavailable,
    Unauthenticated,
    UndecodableRequest,
    Unimplemented,
    is_panic,
)
from blobhub_server.rpc import guard
from blobhub_server.rpc.arriving import Arriving, Decode, strictly
from blobhub_server.rpc.errors import status_of, to_blobhub_error
from blobhub_server.rpc.guard import Guard
from blobhub_server.rpc.room import Room, Sender
from blobhub_server.rpc.validation import validate

OPEN = ("/grpc.health.v1.", "/grpc.reflection.")
"""gRPC's own services. They tell no secrets, so they need no admission; they get gRPC's context."""

Metadata = Sequence[tuple[str, str | bytes]] | None


class Admission(guard.Admission, Protocol):
    """The admission of one call."""

    async def identify(self) -> None:
        """Find the caller. Raises Unauthenticated and the like."""

    async def answer(self, make: Callable[[Any], Awaitable[bytes]]) -> bytes:
        """Admit a call and return what `make` answers, or the answer remembered for the same request.

        Raises InvalidReference, Unauthenticated, PermissionDenied and the like, and what `make` raises.
        """

    async def admit(self) -> Any:
        """Admit a call that is answered with a stream; return it. Raises the same."""

    async def record_failure(self, error: BlobHubError, *, handled: bool) -> None:
        """Record a call that ends with an error; `handled` says that its handler had begun."""


class Gate(Protocol):
    """Authenticates callers, authorizes calls, and records refusals."""

    def screen(self, metadata: Metadata) -> None:
        """Check the form of a call's key, before anything of the call is read. Raises Unauthenticated."""

    def recognizes(self, metadata: Metadata) -> bool:
        """Whether a call comes from somebody who was identified a moment ago."""

    async def sender(self, metadata: Metadata, peer: str) -> Sender:
        """Who sends a call that nothing has been read of."""

    def arrive(self, method: str, request: Message, metadata: Metadata) -> Admission:
        """The admission of a call that has just arrived. Its first request is decoded, and nothing is checked yet."""


@dataclass(frozen=True, slots=True)
class _Wrapped:
    """A method's handler as gRPC gets it: to be handed the request, if it is one, or to read by itself."""

    at_once: grpc.RpcMethodHandler[Any, Any] | None
    by_turns: grpc.RpcMethodHandler[Any, Any]


def _decode_nothing(_: bytes) -> Message:
    raise UndecodableRequest


class Pipeline(grpc.aio.ServerInterceptor):
    """Wraps every handler."""

    def __init__(self, gate: Gate, guard: Guard, trouble: Trouble, *, request_seconds: float) -> None:
        """Calls that the storage has failed are reported to `trouble`; a message may take `request_seconds` to arrive."""
        self._room = Room()
        self._request_seconds = request_seconds
        self._gate = gate
        self._trouble = trouble
        self._guard = guard
        # Bound once, because structlog's lazy loggers bind anew for each line, also for lines that are not written.
        self._log = structlog.get_logger().bind()
        self._wrapped: dict[str, _Wrapped] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The wrapped handler of a method."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                # Not cached: clients could fill the memory with names of methods that do not exist.
                return _refusing(self._entrance(method), Unimplemented())
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        metadata = handler_call_details.invocation_metadata
        if not method.startswith(OPEN):
            try:
                self._gate.screen(metadata)
            except Unauthenticated as error:
                return _refusing(self._entrance(method), error)
        if wrapped.at_once is not None and self._gate.recognizes(metadata) and self._room.enter_at_once():
            return wrapped.at_once
        return wrapped.by_turns

    def _entrance(self, method: str, decode: Decode = _decode_nothing) -> _Entrance:
        return _Entrance(
            method=method,
            gate=self._gate,
            guard=self._guard,
            trouble=self._trouble,
            log=self._log,
            room=self._room,
            decode=decode,
            request_seconds=self._request_seconds,
        )

    def _wrap(self, method: str, handler: Any) -> _Wrapped:
        encode = _serializer(handler.response_serializer)
        entrance = self._entrance(method, strictly(handler.request_deserializer))
        kind = _kind_of(handler)
        serve = (_wrap_open if method.startswith(OPEN) else _wrap_gated)(entrance, kind, getattr(handler, kind), encode)
        by_turns = _by_turns(entrance, serve, encode, streaming=handler.request_streaming)
        if handler.request_streaming:
            return _Wrapped(at_once=None, by_turns=by_turns)
        at_once = getattr(grpc, f"{kind}_rpc_method_handler")(serve, response_serializer=encode)
        return _Wrapped(at_once=at_once, by_turns=by_turns)


def _by_turns(
    entrance: _Entrance, serve: Callable[..., Awaitable[bytes | None]], encode: Callable[[Any], bytes], *, streaming: bool
) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler that waits for its turn before it reads; it serves every kind of RPC."""

    async def call(_requests: Any, context: Any) -> None:
        arriving = Arriving(
            context=context,
            room=entrance.room,
            sender=lambda: entrance.gate.sender(context.invocation_metadata(), context.peer()),
            decode=entrance.decode,
            streaming=streaming,
            max_seconds=entrance.request_seconds,
        )
        try:
            answer = await serve(arriving, context)
            if answer is not None:
                await _unless_gone(context.write(answer))
        finally:
            await arriving.leave()

    return grpc.stream_stream_rpc_method_handler(call, response_serializer=encode)


def _serializer(encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Encoding that passes on bytes as they are: batches of events are encoded already."""

    def serializer(answer: Any) -> bytes:
        return answer if type(answer) is bytes else encode(answer)

    return serializer


@dataclass(frozen=True, slots=True)
class _Entrance:
    """What the calls of one method share."""

    method: str
    gate: Gate
    guard: Guard
    trouble: Trouble
    log: Any
    room: Room
    decode: Decode
    request_seconds: float

    async def first(self, request: bytes | Arriving) -> Message:
        """The one request of a call, or the first of a stream. Raises what `Arriving.first` raises."""
        if isinstance(request, Arriving):
            return await request.first()
        self.room.arrived(len(request))
        return self.decode(request)


def _kind_of(handler: Any) -> str:
    """The kind of RPC, as gRPC names it: `unary_unary`, `unary_stream`, `stream_unary`, `stream_stream`."""
    kinds = {False: "unary", True: "stream"}
    return f"{kinds[handler.request_streaming]}_{kinds[handler.response_streaming]}"


def _wrap_open(entrance: _Entrance, kind: str, handler: Any, encode: Callable[[Any], bytes]) -> Callable[..., Any]:
    """Wrap a method of gRPC's own services."""
    if kind == "unary_unary":
        return _open_unary(entrance, handler, encode)
    return _open_stream(entrance, handler, encode, streaming=kind == "stream_stream")


def _wrap_gated(entrance: _Entrance, kind: str, handler: Any, encode: Callable[[Any], bytes]) -> Callable[..., Any]:
    """Wrap a method of ours."""
    match kind:
        case "unary_unary":
            return _unary_unary(entrance, handler, encode)
        case "stream_unary":
            return _stream_unary(entrance, handler, encode)
        case "unary_stream":
            return _streaming(entrance, handler, encode, streaming=False)
        case _:
            return _streaming(entrance, handler, encode, streaming=True)


def _open_unary(
    entrance: _Entrance, handler: Callable[..., Awaitable[Any]], encode: Callable[[Any], bytes]
) -> Callable[..., Awaitable[bytes]]:
    async def call(request: Any, context: Any) -> bytes:
        async with _Observed(entrance, context):
            return encode(await handler(await entrance.first(request), context))

    return call


def _open_stream(
    entrance: _Entrance, handler: Callable[..., Any], encode: Callable[[Any], bytes], *, streaming: bool
) -> Callable[..., Awaitable[None]]:
    async def call(request: Any, context: Any) -> None:
        async with _Observed(entrance, context):
            answers = handler(request.decoded() if streaming else await entrance.first(request), context)
            if isawaitable(answers):
                await answers  # It writes to the context by itself, as the health service's Watch does.
                return
            async with aclosing(answers):
                async for answer in answers:
                    await _unless_gone(context.write(encode(answer)))

    return call


def _unary_unary(
    entrance: _Entrance, handler: Callable[..., Awaitable[Any]], encode: Callable[[Any], bytes]
) -> Callable[..., Awaitable[bytes]]:
    async def serve(arriving: Any, context: Any) -> bytes:
        async with _Observed(entrance, context) as observed:
            request = await entrance.first(arriving)

            async def answer(call: Any) -> bytes:
                observed.begin()
                return encode(await handler(request, call))

            return await (await observed.arrive(request)).answer(answer)

    return serve


def _stream_unary(
    entrance: _Entrance, handler: Callable[..., Awaitable[Any]], encode: Callable[[Any], bytes]
) -> Callable[..., Awaitable[bytes]]:
    async def serve(requests: Any, context: Any) -> bytes:
        async with _Observed(entrance, context) as observed:
            first = await entrance.first(requests)
            admission = await observed.arrive(first)
            checked = requests.validated(first)

            async def answer(call: Any) -> bytes:
                observed.begin()
                with entrance.guard.watch(admission):
                    return encode(await handler(checked, call))

            return await admission.answer(answer)

    return serve


def _streaming(
    entrance: _Entrance, handler: Callable[..., Any], encode: Callable[[Any], bytes], *, streaming: bool
) -> Callable[..., Awaitable[None]]:
    """Serve a stream of answers to one request, or, when it is `streaming`, to a stream of them."""

    async def serve(request: Any, context: Any) -> None:
        async with _Observed(entrance, context) as observed:
            first = await entrance.first(request)
            admission = await observed.arrive(first)
            call = await admission.admit()
            checked = request.validated(first) if streaming else first
            observed.begin()
            # Alone, because gRPC sends no status while the first answer waits for its reader with the metadata.
            await _unless_gone(context.send_initial_metadata(()))
            time = asyncio.get_running_loop().time
            with entrance.guard.watch(admission) as stream:
                async with aclosing(handler(checked, call)) as answers:
                    async for answer in answers:
                        stream.sending_since = time()
                        await _unless_gone(context.write(encode(answer)))
                        stream.sending_since = None

    return serve


async def _unless_gone(sending: Awaitable[None]) -> None:
    """Send something. When the client has gone, gRPC raises an InternalError; that is a cancellation."""
    try:
        await sending
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None


def _refusing(entrance: _Entrance, error: BlobHubError) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler that answers an error without reading the request; it serves every kind of RPC."""

    async def call(_requests: Any, context: Any) -> None:
        async with _Observed(entrance, context):
            raise error

    return grpc.stream_stream_rpc_method_handler(call)


class _Observed:
    """Logs one call, and turns what it raises into a status. Cancellation passes through unchanged."""

    __slots__ = ("_admission", "_context", "_entrance", "_handled", "_start")

    def __init__(self, entrance: _Entrance, context: Any) -> None:
        self._entrance = entrance
        self._context = context
        self._start = time.perf_counter()
        self._admission: Admission | None = None
        self._handled = False

    async def __aenter__(self) -> Self:
        return self

    async def arrive(self, request: Any) -> Admission:
        """Take the call to the gate: find its caller, then validate its first request.

        Raises Unauthenticated, InvalidRequest.
        """
        metadata = self._context.invocation_metadata()
        admission = self._entrance.gate.arrive(self._entrance.method, request, metadata)
        self._admission = admission
        await admission.identify()
        validate(request)
        return admission

    def begin(self) -> None:
        """Note that the handler of an admitted call begins now."""
        self._handled = True

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        log = self._entrance.log
        if error is None:
            self._log(log.debug, "OK")
        elif isinstance(error, grpc.aio.AbortError):
            self._log(log.info, self._context.code().name)
        elif isinstance(error, Exception) or is_panic(error):
            raised = to_blobhub_error(error, self._entrance.method)
            if isinstance(raised, StorageUnavailable):
                self._entrance.trouble.report(raised)
            status, message, trailers = status_of(raised)
            self._log(log.info, status.name)
            if self._admission is not None and not isinstance(raised, UndecodableRequest):
                await self._admission.record_failure(raised, handled=self._handled)
            await _unless_gone(self._context.abort(status, message, trailers))
        else:
            self._log(log.info, "CANCELLED")

    def _log(self, write: Callable[..., Any], code: str) -> None:
        took = (time.perf_counter() - self._start) * 1000
        write("call", method=self._entrance.method, code=code, ms=round(took, 2))
