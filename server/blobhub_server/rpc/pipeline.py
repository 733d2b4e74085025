"""What every call goes through, in this order: log, errors, decode, admit, validate, guard, handler.

One interceptor does it for all four kinds of RPC. Handlers are wrapped once per method, not once per call.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from inspect import isawaitable
from typing import Any, Protocol, Self

import grpc
import structlog
from google.protobuf.message import Message

from blobhub_server.errors import BlobHubError, InvalidRequest, UndecodableRequest, Unimplemented, Violation
from blobhub_server.rpc.errors import known, status_of
from blobhub_server.rpc.guard import Admission, Guard
from blobhub_server.rpc.validation import validate

OPEN = ("/grpc.health.v1.", "/grpc.reflection.")
"""Services that need no admission: they tell nothing that a caller may not know."""


class Gate(Protocol):
    """Authenticates the caller, authorizes the call, and keeps record of what was refused."""

    async def admit(self, method: str, request: Message, context: Any) -> Admission:
        """Return when the call may go on. Raises Unauthenticated, PermissionDenied and the like."""

    async def refused(self, error: BlobHubError, *, handled: bool) -> None:
        """The call being served ends with an error; `handled` says that its handler had begun."""


class _Undecodable:
    """Stands for request bytes that are not a message of the request's type."""


_UNDECODABLE = _Undecodable()


class Pipeline(grpc.aio.ServerInterceptor):
    """Wraps every handler."""

    def __init__(self, gate: Gate, guard: Guard) -> None:
        self._gate = gate
        self._guard = guard
        # Bound once: structlog's lazy loggers cost a binding a line, also for lines that are not written.
        self._log = structlog.get_logger().bind()
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

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
                # Not kept: there is no end to the names of methods that do not exist.
                return _unknown(_Entrance(method, None, self._guard, self._log))
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        encode = _serializer(handler.response_serializer)
        codec = {"request_deserializer": _lenient(handler.request_deserializer), "response_serializer": encode}
        entrance = _Entrance(method, None if method.startswith(OPEN) else self._gate, self._guard, self._log)
        if handler.request_streaming and handler.response_streaming:
            call = _streaming(entrance, entrance.stream, handler.stream_stream, encode)
            return grpc.stream_stream_rpc_method_handler(call, **codec)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(_stream_unary(entrance, handler.stream_unary, encode), **codec)
        if handler.response_streaming:
            call = _streaming(entrance, entrance.alone, handler.unary_stream, encode)
            return grpc.unary_stream_rpc_method_handler(call, **codec)
        return grpc.unary_unary_rpc_method_handler(_unary_unary(entrance, handler.unary_unary, encode), **codec)


def _lenient(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Decoding that does not raise: gRPC would answer for it, in words of its own."""

    def lenient(data: bytes) -> Any:
        try:
            return decode(data)
        except Exception:
            return _UNDECODABLE

    return lenient


def _serializer(encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Encoding that lets through what is encoded already, as batches of events are."""

    def serializer(answer: Any) -> bytes:
        return answer if type(answer) is bytes else encode(answer)

    return serializer


class _Entrance:
    """What happens to the requests of one method before a handler sees them. Without a gate, all may pass."""

    def __init__(self, method: str, gate: Gate | None, guard: Guard, log: Any) -> None:
        self.method = method
        self.gate = gate
        self.guard = guard
        self.log = log

    async def single(self, request: Any, context: Any) -> Admission | None:
        """Check one request."""
        if request is _UNDECODABLE:
            raise UndecodableRequest
        if self.gate is None:
            return None
        admission = await self.gate.admit(self.method, request, context)
        if admission.answer is None:
            validate(request)
        return admission

    async def alone(self, request: Any, context: Any) -> tuple[Admission | None, Any]:
        """The one request of a stream of answers, checked.

        Streams are not answered from memory: their handlers go on from the answer that is remembered.
        """
        return await self.single(request, context), request

    async def stream(self, requests: AsyncIterator[Any], context: Any) -> tuple[Admission | None, AsyncIterator[Any]]:
        """Requests, checked: the first is admitted before the handler starts, all are validated.

        A stream without a first request says nothing that could be admitted, so no handler sees it.
        """
        iterator = aiter(requests)
        first = await anext(iterator, None)
        admission = None
        if first is not None:
            admission = await self.single(first, context)
        elif self.gate is not None:
            raise InvalidRequest([Violation("", "the stream has no first message")])
        return admission, self._rest(first, iterator)

    async def _rest(self, first: Any, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        if first is None:
            return
        yield first
        async for request in requests:
            if request is _UNDECODABLE:
                raise UndecodableRequest
            if self.gate is not None:
                validate(request)
            yield request


def _unary_unary(
    entrance: _Entrance, handler: Callable[..., Awaitable[Any]], encode: Callable[[Any], bytes]
) -> Callable[..., Awaitable[bytes]]:
    async def call(request: Any, context: Any) -> bytes:
        async with _Observed(entrance, context) as observed:
            admission = await entrance.single(request, context)
            if admission is not None and admission.answer is not None:
                return admission.answer
            observed.handled = True
            return await _answered(admission, handler(request, context), encode)

    return call


def _stream_unary(
    entrance: _Entrance, handler: Callable[..., Awaitable[Any]], encode: Callable[[Any], bytes]
) -> Callable[..., Awaitable[bytes]]:
    async def call(requests: Any, context: Any) -> bytes:
        async with _Observed(entrance, context) as observed:
            admission, checked = await entrance.stream(requests, context)
            observed.handled = True
            if admission is None:
                return encode(await handler(checked, context))
            if admission.answer is not None:
                return admission.answer
            with entrance.guard.watch(admission):
                return await _answered(admission, handler(checked, context), encode)

    return call


async def _answered(admission: Admission | None, answer: Awaitable[Any], encode: Callable[[Any], bytes]) -> bytes:
    """What a handler answers. Where it fails because the same request came first, by a moment, that one's answer."""
    try:
        return encode(await answer)
    except Exception:
        before = None if admission is None else await admission.meanwhile()
        if before is None:
            raise
        return before


def _streaming(
    entrance: _Entrance,
    check: Callable[[Any, Any], Awaitable[tuple[Admission | None, Any]]],
    handler: Callable[..., Any],
    encode: Callable[[Any], bytes],
) -> Callable[..., AsyncIterator[bytes]]:
    """A stream of answers to what `check` lets through."""

    async def call(request: Any, context: Any) -> AsyncIterator[bytes]:
        async with _Observed(entrance, context) as observed:
            admission, checked = await check(request, context)
            observed.handled = True
            answers = handler(checked, context)
            if isawaitable(answers):
                await answers  # It writes to the context by itself, as the health service's Watch does.
                return
            async with aclosing(answers):
                if admission is None:
                    async for answer in answers:
                        yield encode(answer)
                    return
                with entrance.guard.watch(admission) as stream:
                    async for answer in answers:
                        stream.sending = True
                        yield encode(answer)
                        stream.sending = False
                        stream.raise_if_ended()

    return call


def _unknown(entrance: _Entrance) -> grpc.RpcMethodHandler[Any, Any]:
    async def call(_requests: Any, context: Any) -> None:
        async with _Observed(entrance, context):
            raise Unimplemented

    return grpc.stream_stream_rpc_method_handler(call)


class _Observed:
    """Around one call: logs it, and turns what it raises into a status. Cancellation passes through untouched."""

    __slots__ = ("_context", "_entrance", "_start", "handled")

    def __init__(self, entrance: _Entrance, context: Any) -> None:
        self._entrance = entrance
        self._context = context
        self._start = time.perf_counter()
        self.handled = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        log, gate = self._entrance.log, self._entrance.gate
        if error is None:
            self._log(log.debug, "OK")
        elif isinstance(error, grpc.aio.AbortError):
            self._log(log.info, self._context.code().name)
        elif isinstance(error, Exception):
            raised = known(error, self._entrance.method)
            status, message, trailers = status_of(raised)
            self._log(log.info, status.name)
            if gate is not None and not isinstance(raised, UndecodableRequest):
                await gate.refused(raised, handled=self.handled)
            await self._context.abort(status, message, trailers)
        else:
            self._log(log.info, "CANCELLED")

    def _log(self, write: Callable[..., Any], code: str) -> None:
        took = (time.perf_counter() - self._start) * 1000
        write("call", method=self._entrance.method, code=code, ms=round(took, 2))
