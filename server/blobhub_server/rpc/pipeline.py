"""What every call goes through, in this order: log, errors, decode, admit, validate, handler.

One interceptor does it for all four kinds of RPC. Handlers are wrapped once per method, not once per call.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.message import Message

from blobhub_server.errors import UndecodableRequest
from blobhub_server.rpc.errors import known, status_of
from blobhub_server.rpc.validation import validate

log = structlog.get_logger()

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
                return handler
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        codec = {
            "request_deserializer": _lenient(handler.request_deserializer),
            "response_serializer": _serializer(handler.response_serializer),
        }
        gate = _Gate(method, None if method.startswith(OPEN) else self._admit)
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(_stream_stream(gate, handler.stream_stream), **codec)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(_stream_unary(gate, handler.stream_unary), **codec)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(_unary_stream(gate, handler.unary_stream), **codec)
        return grpc.unary_unary_rpc_method_handler(_unary_unary(gate, handler.unary_unary), **codec)


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

    def __init__(self, method: str, admit: Admit | None) -> None:
        self.method = method
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

    async def stream(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Requests, checked: the first is admitted before the handler starts, all are validated."""
        iterator = aiter(requests)
        first = await anext(iterator, None)
        if first is not None:
            await self.single(first, context)
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


def _unary_unary(gate: _Gate, handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(request: Any, context: Any) -> Any:
        async with _observed(gate.method, context):
            before = await gate.single(request, context)
            return await handler(request, context) if before is None else before

    return call


def _unary_stream(gate: _Gate, handler: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        async with _observed(gate.method, context):
            # A stream is not answered from memory: its handler goes on from the answer that is remembered.
            await gate.single(request, context)
            async for answer in handler(request, context):
                yield answer

    return call


def _stream_unary(gate: _Gate, handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(requests: Any, context: Any) -> Any:
        async with _observed(gate.method, context):
            return await handler(await gate.stream(requests, context), context)

    return call


def _stream_stream(gate: _Gate, handler: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
    async def call(requests: Any, context: Any) -> AsyncIterator[Any]:
        async with _observed(gate.method, context):
            async for answer in handler(await gate.stream(requests, context), context):
                yield answer

    return call


@asynccontextmanager
async def _observed(method: str, context: Any) -> AsyncIterator[None]:
    """Log the call, and turn what it raises into a status. Cancellation passes through untouched."""
    start = time.perf_counter()
    code = "OK"
    try:
        yield
    except grpc.aio.AbortError:
        code = "ABORTED"
        raise
    except Exception as error:
        status, message, trailers = status_of(known(error, method))
        code = status.name
        await context.abort(status, message, trailers)
    except BaseException:
        code = "CANCELLED"
        raise
    finally:
        took = (time.perf_counter() - start) * 1000
        if code == "OK":
            log.debug("call", method=method, code=code, ms=round(took, 2))
        else:
            log.info("call", method=method, code=code, ms=round(took, 2))
