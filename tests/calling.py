"""Calls by the name of their method, whatever kind it is of: for tests that are about all methods, or very many."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from typing import Any

import grpc
from blobhub_server.blobtypes.conformance import reason_of, unpack
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from methods import Method, served_methods
from served import Api

METHODS = {method.name: method for method in (*served_methods(), *served_methods("stranger.notes.v1"))}
"""Every method by its name; there are no two of one name."""


def request_of(method: Method, **fields: Any) -> Message:
    """A method's request."""
    return GetMessageClass(method.input)(**fields)


async def send(api: Api, method: Method, request: Message) -> list[Any]:
    """Make a call; all messages of its answer, which is one where the method does not stream answers."""
    codec = {
        "request_serializer": type(request).SerializeToString,
        "response_deserializer": GetMessageClass(method.output).FromString,
    }
    if method.client_streaming and method.server_streaming:
        return [answer async for answer in api.channel.stream_stream(method.path, **codec)(_alone(request))]
    if method.client_streaming:
        return [await api.channel.stream_unary(method.path, **codec)(_alone(request))]
    if method.server_streaming:
        return [answer async for answer in api.channel.unary_stream(method.path, **codec)(request)]
    return [await api.channel.unary_unary(method.path, **codec)(request)]


async def ask(api: Api, name: str, /, **fields: Any) -> Any:
    """Make a call of a method by its name; its answer, or the last message of it."""
    method = METHODS[name]
    return (await send(api, method, request_of(method, **fields)))[-1]


async def outcome(call: Coroutine[Any, Any, Any]) -> str:
    """`OK`, or the reason of the refusal."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return "OK"


def seconds_to_retry(error: grpc.aio.AioRpcError) -> float:
    """After how long a refusal says that the call may be made again."""
    again = error_details_pb2.RetryInfo()
    assert unpack(error, again)
    return again.retry_delay.ToTimedelta().total_seconds()


async def _alone(request: Message) -> AsyncIterator[Message]:
    """A request, as the only one of a stream."""
    yield request
