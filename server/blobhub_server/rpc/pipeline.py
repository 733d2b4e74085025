"""What every call goes through, in this order: form of the key, log, errors, room for the request, decode, identify the
caller, validate, admit (the remembered answer, or authorization), guard, handler. So which error wins never depends on what
there is.

One interceptor does it for all four kinds of RPC. Handlers are wrapped once per method, not once per call. They get the
request, or the stream of requests, and the call that the gate made of it; gRPC's context stays here. Each is wrapped twice:
a call with one request is handed it by gRPC, or, when many requests are under way, waits for its turn and reads it itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message

from blobhub_server.bounded_log import BoundedLog
from blobhub_server.config import Settings
from blobhub_server.db.trouble import Trouble
from blobhub_server.errors import (
    BlobHubError,
    InvalidRequest,
    Overloaded,
    Unauthenticated,
    UndecodableRequest,
    Unimplemented,
    Violation,
)
from blobhub_server.rpc.arriving import Arriving, Decode, Weigh, strict_decoder
from blobhub_server.rpc.call_counts import CallCounts
from blobhub_server.rpc.gate import Admission, Gate
from blobhub_server.rpc.guard import Guard
from blobhub_server.rpc.observed import UNKNOWN_METHOD, Entrance, Observed, unless_gone
from blobhub_server.rpc.open_streams import OpenStreams
from blobhub_server.rpc.port import ORDINARY, PortBounds
from blobhub_server.rpc.room import Room, Sender, address_of
from blobhub_server.rpc.transport_error import StreamUnread
from blobhub_server.rpc.under_way import UnderWay
from blobhub_server.rpc.unread import Answer
from blobhub_server.rpc.value_bound import weigher
from blobhub_server.turnstile import Party

OPEN = ("/grpc.health.v1.", "/grpc.reflection.")
"""gRPC's own services. They tell no secrets, so they need no admission; they get gRPC's context."""


MAX_METADATA_BYTES = 32 << 10
"""What names and values of a call's metadata have in all. gRPC bounds what is sent, and not what it stands for: a value that
HPACK has remembered takes a byte each time, so 16 KiB became 16 MiB, anew each time that the metadata was read."""

_TOO_MUCH_METADATA = Violation("", f"the metadata may have at most {MAX_METADATA_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class _Wrapped:
    """A method's handler as gRPC gets it: to be handed the request, if it is one, or to read by itself."""

    at_once: grpc.RpcMethodHandler[Any, Any] | None
    by_turns: grpc.RpcMethodHandler[Any, Any]


async def _decode_nothing(_: bytes, _party: Party) -> Message:
    raise UndecodableRequest


class Pipeline(grpc.aio.ServerInterceptor):
    """Wraps every handler."""

    def __init__(
        self,
        gate: Gate,
        guard: Guard,
        trouble: Trouble,
        settings: Settings,
        *,
        bounds: PortBounds = ORDINARY,
        beside: Pipeline | None = None,
    ) -> None:
        """Calls that the storage has failed are reported to `trouble`.

        `beside` is the pipeline of another port of the server: what is counted by caller or by method is counted over both.
        """
        self.bounds = bounds
        self._room = Room(bounds.room)
        self._under_way = UnderWay(bounds.max_under_way_bytes)
        self._refusals: BoundedLog = beside._refusals if beside else BoundedLog("call")
        self._streams: OpenStreams = (
            beside._streams
            if beside
            else OpenStreams(per_caller=settings.max_streams_per_caller, per_address=settings.max_streams_per_address)
        )
        self.counts: CallCounts = beside.counts if beside else CallCounts()
        self._request_seconds = settings.request_seconds
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
                return _refusing(self._entrance(UNKNOWN_METHOD), Unimplemented())
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        metadata = handler_call_details.invocation_metadata
        if sum([len(key) + len(value) for key, value in metadata]) > MAX_METADATA_BYTES:
            return _refusing(self._entrance(method), InvalidRequest([_TOO_MUCH_METADATA]))
        if not method.startswith(OPEN):
            try:
                self._gate.screen(metadata)
            except Unauthenticated as error:
                return _refusing(self._entrance(method), error)
        if wrapped.at_once is not None:
            sender = self._gate.known_sender(metadata)
            if sender is not None and self._room.enter_at_once(sender):
                return wrapped.at_once
        return wrapped.by_turns

    def _entrance(
        self, method: str, kind: str = "unary_unary", decode: Decode = _decode_nothing, weigh: Weigh = len
    ) -> Entrance:
        counts = self.counts.of(method, kind)

        def counted(data: bytes, party: Party) -> Awaitable[Message]:
            counts.received += 1
            return decode(data, party)

        return Entrance(
            method=method,
            gate=self._gate,
            guard=self._guard,
            trouble=self._trouble,
            log=self._log,
            refusals=self._refusals,
            room=self._room,
            streams=self._streams,
            under_way=self._under_way,
            decode=counted,
            weigh=weigh,
            request_seconds=self._request_seconds,
            counts=counts,
        )

    def _wrap(self, method: str, handler: Any) -> _Wrapped:
        encode = _serializer(handler.response_serializer)
        kind = _kind_of(handler)
        weigh = weigher(handler.request_deserializer(b""))
        entrance = self._entrance(method, kind, strict_decoder(handler.request_deserializer, weigh), weigh)
        serve = (_wrap_open if method.startswith(OPEN) else _wrap_gated)(entrance, kind, getattr(handler, kind), encode)
        by_turns = _by_turns(entrance, serve, encode, streaming=handler.request_streaming)
        if handler.request_streaming:
            return _Wrapped(at_once=None, by_turns=by_turns)
        at_once = getattr(grpc, f"{kind}_rpc_method_handler")(serve, response_serializer=encode)
        return _Wrapped(at_once=at_once, by_turns=by_turns)


def _by_turns(
    entrance: Entrance, serve: Callable[..., Awaitable[bytes | None]], encode: Callable[[Any], bytes], *, streaming: bool
) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler that waits for its turn before it reads; it serves every kind of RPC."""

    async def call(_requests: Any, context: Any) -> None:
        arriving = Arriving(
            context=context,
            room=entrance.room,
            method=entrance.method,
            sender=lambda: entrance.gate.sender(context.invocation_metadata(), context.peer()),
            decode=entrance.decode,
            weigh=entrance.weigh,
            streaming=streaming,
            max_seconds=entrance.request_seconds,
        )
        try:
            answer = await serve(arriving, context)
            if answer is not None:
                await unless_gone(context.write(answer))
        finally:
            await arriving.leave()

    return grpc.stream_stream_rpc_method_handler(call, response_serializer=encode)


def _serializer(encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Encoding that passes on bytes as they are: batches of events are encoded already."""

    def serializer(answer: Any) -> bytes:
        return answer if type(answer) is bytes else encode(answer)

    return serializer


def _kind_of(handler: Any) -> str:
    """The kind of RPC, as gRPC names it: `unary_unary`, `unary_stream`, `stream_unary`, `stream_stream`."""
    kinds = {False: "unary", True: "stream"}
    return f"{kinds[handler.request_streaming]}_{kinds[handler.response_streaming]}"


def _wrap_open(entrance: Entrance, kind: str, handler: Any, encode: Callable[[Any], bytes]) -> Callable[..., Any]:
    """Wrap a method of gRPC's own services."""
    if kind == "unary_unary":
        return _open_unary(entrance, handler, encode)
    return _open_stream(entrance, handler, encode, streaming=kind == "stream_stream")


def _wrap_gated(entrance: Entrance, kind: str, handler: Any, encode: Callable[[Any], bytes]) -> Callable[..., Any]:
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
    entrance: Entrance, handler: Callable[..., Awaitable[Any]], encode: Callable[[Any], bytes]
) -> Callable[..., Awaitable[bytes]]:
    async def call(request: Any, context: Any) -> bytes:
        async with Observed(entrance, context) as observed:
            first = await observed.first(request)
            await observed.begin()
            answer = encode(await handler(first, context))
            entrance.counts.sent += 1
            return answer

    return call


def _open_stream(
    entrance: Entrance, handler: Callable[..., Any], encode: Callable[[Any], bytes], *, streaming: bool
) -> Callable[..., Awaitable[None]]:
    async def call(request: Any, context: Any) -> None:
        sender = Sender(name=address_of(context.peer()), known=False)
        async with Observed(entrance, context) as observed:
            with entrance.streams.one_more(sender):
                answers = handler(request.decoded() if streaming else await observed.first(request), context)
                await observed.begin()
                if isawaitable(answers):
                    await answers  # It writes to the context by itself, as the health service's Watch does.
                    return
                async with aclosing(answers):
                    async for answer in answers:
                        await unless_gone(context.write(encode(answer)))
                        entrance.counts.sent += 1

    return call


def _unary_unary(
    entrance: Entrance, handler: Callable[..., Awaitable[Any]], encode: Callable[[Any], bytes]
) -> Callable[..., Awaitable[bytes]]:
    async def serve(arriving: Any, context: Any) -> bytes:
        async with Observed(entrance, context) as observed:
            request = await observed.first(arriving)

            async def answer(call: Any) -> bytes:
                await observed.begin()
                return encode(await handler(request, call))

            admission = await observed.arrive(request)
            unread = _unread_answer(entrance, admission, context)
            with entrance.under_way.one_more(unread.sender, observed.request_bytes):
                encoded = await admission.answer(answer)
            entrance.guard.unread.hold_until_done(unread, len(encoded), refusable=not admission.changes)
            entrance.counts.sent += 1
            return encoded

    return serve


def _stream_unary(
    entrance: Entrance, handler: Callable[..., Awaitable[Any]], encode: Callable[[Any], bytes]
) -> Callable[..., Awaitable[bytes]]:
    async def serve(requests: Any, context: Any) -> bytes:
        async with Observed(entrance, context) as observed:
            first = await observed.first(requests)
            admission = await observed.arrive(first)
            unread = _unread_answer(entrance, admission, context)
            checked = requests.validated(first)

            async def answer(call: Any) -> bytes:
                await observed.begin()
                with entrance.guard.watch(admission):
                    return encode(await handler(checked, call))

            encoded = await admission.answer(answer)
            entrance.guard.unread.hold_until_done(unread, len(encoded), refusable=not admission.changes)
            entrance.counts.sent += 1
            return encoded

    return serve


def _unread_answer(entrance: Entrance, admission: Admission, context: Any) -> Answer:
    """What a call will leave unread: nothing yet. Raises Overloaded when its sender has too much unread already."""
    peer = context.peer()
    sender = admission.sender(peer)
    entrance.guard.unread.require_room(sender)
    return Answer(sender=sender, peer=peer)


def _streaming(
    entrance: Entrance, handler: Callable[..., Any], encode: Callable[[Any], bytes], *, streaming: bool
) -> Callable[..., Awaitable[None]]:
    """Serve a stream of answers to one request, or, when it is `streaming`, to a stream of them."""

    async def serve(request: Any, context: Any) -> None:
        # A stream is counted until its status is sent, and that waits for a client that does not read.
        with ExitStack() as counted:
            async with Observed(entrance, context) as observed:
                first = await observed.first(request)
                admission = await observed.arrive(first)
                unread = _unread_answer(entrance, admission, context)
                counted.enter_context(entrance.streams.one_more(unread.sender))
                counted.callback(entrance.guard.unread.release, unread)
                call = await admission.admit()
                await observed.begin()
                # Alone, because gRPC sends no status while the first answer waits for its reader with the metadata.
                await unless_gone(context.send_initial_metadata(()))
                answers = handler(request.validated(first) if streaming else first, call)
                await _send_all(entrance, admission, context, answers, encode, unread)

    return serve


async def _send_all(
    entrance: Entrance, admission: Admission, context: Any, answers: Any, encode: Callable[[Any], bytes], unread: Answer
) -> None:
    """Send the answers of a handler, for as long as the guard lets them."""
    time, guard = asyncio.get_running_loop().time, entrance.guard
    sent = None
    with guard.watch(admission) as stream:
        async with aclosing(answers):
            async for answer in answers:
                message = encode(answer)
                try:
                    guard.unread.hold(unread, len(message))
                except Overloaded:
                    raise StreamUnread(sent) from None
                stream.sending_since = time()
                await unless_gone(context.write(message))
                stream.sending_since = None
                guard.unread.release(unread)
                entrance.counts.sent += 1
                sent = admission.last_sequence


def _refusing(entrance: Entrance, error: BlobHubError) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler that answers an error without reading the request; it serves every kind of RPC."""

    async def call(_requests: Any, context: Any) -> None:
        async with Observed(entrance, context):
            raise error

    return grpc.stream_stream_rpc_method_handler(call)
