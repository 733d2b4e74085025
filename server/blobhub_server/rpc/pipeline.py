"""What every call goes through, in this order: log, errors, decode, admit, validate, handler.

One interceptor does it for all four kinds of RPC. Handlers are wrapped once per method, not once per call.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from inspect import isawaitable
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.message import Message

from blobhub_server.errors import InvalidRequest, UndecodableRequest, Unimplemented, Violation
from blobhub_server.rpc.errors import known, status_of
from blobhub_server.rpc.validation import validate

OPEN = ("/grpc.health.v1.", "/grpc.reflection.")
"""Services that need no admission: they tell nothing that a caller may not know."""


class Admit(Protocol):
    """Authenticates the caller and authorizes the call; raises Unauthenticated, PermissionDenied and the like."""

    async def __call__(self, method: str, request: Message, context: Any) -> bytes | None:
        """Return when the call may go on; bytes are the answer to a call that was made and answered before."""


class _Undecodable:
    """Stands for request bytes that are not a message of the request's type."""


_UNDECODABLE = _Undecodable()


class Pipeline(grpc.aio.ServerInterceptor):
    """Wraps every handler."""

    def __init__(self, admit: Admit) -> None:
        self._admit = admit
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
                return _unknown(_Gate(method, None, self._log))
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        encode = _serializer(handler.response_serializer)
        codec = {"request_deserializer": _lenient(handler.request_deserializer), "response_serializer": encode}
        gate = _Gate(method, None if method.startswith(OPEN) else self._admit, self._log)
        if handler.request_streaming and handler.response_streaming:
            call = _streaming(gate, gate.stream, handler.stream_stream, encode)
            return grpc.stream_stream_rpc_method_handler(call, **codec)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(_stream_unary(gate, handler.stream_unary, encode), **codec)
        if handler.response_streaming:
            call = _streaming(gate, gate.alone, handler.unary_stream, encode)
            return grpc.unary_stream_rpc_method_handler(call, **codec)
        return grpc.unary_unary_rpc_method_handler(_unary_unary(gate, handler.unary_unary, encode), **codec)


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


class _Gate:
    """What happens to requests before a handler sees them."""

    def __init__(self, method: str, admit: Admit | None, log: Any) -> None:
        self.method = method
        self.log = log
        self._admit = admit

    async def single(self, request: Any, context: Any) -> bytes | None:
        """Check one request; bytes are the answer it was given before."""
        if request is _UNDECODABLE:
            raise UndecodableRequest
        if self._admit is None:
            return None
        before = await self._admit(self.method, request, context)
        if before is None:
            validate(request)
        return before

    async def alone(self, request: Any, context: Any) -> Any:
        """The one request of a stream of answers, checked.

        Streams are not answered from memory: their handlers go on from the answer that is remembered.
        """
        await self.single(request, context)
        return request

    async def stream(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Requests, checked: the first is admitted before the handler starts, all are validated.

        A stream without a first request says nothing that could be admitted, so no handler sees it.
        """
        iterator = aiter(requests)
        first = await anext(iterator, None)
        if first is not None:
            await self.single(first, context)
        elif self._admit is not None:
            raise InvalidRequest([Violation("", "the stream has no first message")])
        return self._rest(first, iterator)

    async def _rest(self, first: Any, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        if first is None:
            return
        yield first
        async for request in requests:
            if request is _UNDECODABLE:
                raise UndecodableRequest
            if self._admit is not None:
                validate(request)
            yield request


def _unary_unary(
    gate: _Gate, handler: Callable[..., Awaitable[Any]], encode: Callable[[Any], bytes]
) -> Callable[..., Awaitable[bytes]]:
    async def call(request: Any, context: Any) -> bytes:
        async with _Observed(gate, context):
            before = await gate.single(request, context)
            return encode(await handler(request, context)) if before is None else before

    return call


def _stream_unary(
    gate: _Gate, handler: Callable[..., Awaitable[Any]], encode: Callable[[Any], bytes]
) -> Callable[..., Awaitable[bytes]]:
    async def call(requests: Any, context: Any) -> bytes:
        async with _Observed(gate, context):
            return encode(await handler(await gate.stream(requests, context), context))

    return call


def _streaming(
    gate: _Gate,
    check: Callable[[Any, Any], Awaitable[Any]],
    handler: Callable[..., Any],
    encode: Callable[[Any], bytes],
) -> Callable[..., AsyncIterator[bytes]]:
    """A stream of answers to what `check` lets through."""

    async def call(request: Any, context: Any) -> AsyncIterator[bytes]:
        async with _Observed(gate, context):
            answers = handler(await check(request, context), context)
            if isawaitable(answers):
                await answers  # It writes to the context by itself, as the health service's Watch does.
                return
            async with aclosing(answers):
                async for answer in answers:
                    yield encode(answer)

    return call


def _unknown(gate: _Gate) -> grpc.RpcMethodHandler[Any, Any]:
    async def call(_requests: Any, context: Any) -> None:
        async with _Observed(gate, context):
            raise Unimplemented

    return grpc.stream_stream_rpc_method_handler(call)


class _Observed:
    """Around one call: logs it, and turns what it raises into a status. Cancellation passes through untouched."""

    __slots__ = ("_context", "_gate", "_start")

    def __init__(self, gate: _Gate, context: Any) -> None:
        self._gate = gate
        self._context = context
        self._start = time.perf_counter()

    async def __aenter__(self) -> None:
        """Nothing to set up."""

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._log(self._gate.log.debug, "OK")
        elif isinstance(error, grpc.aio.AbortError):
            self._log(self._gate.log.info, self._context.code().name)
        elif isinstance(error, Exception):
            status, message, trailers = status_of(known(error, self._gate.method))
            self._log(self._gate.log.info, status.name)
            await self._context.abort(status, message, trailers)
        else:
            self._log(self._gate.log.info, "CANCELLED")

    def _log(self, write: Callable[..., Any], code: str) -> None:
        took = (time.perf_counter() - self._start) * 1000
        write("call", method=self._gate.method, code=code, ms=round(took, 2))
