"""Channels of grpc.aio: one sends a key, the calls of the other have deadlines, are repeated and fail with typed errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc

from blobhub_client.errors import CallError
from blobhub_client.policy import Attempts, Policy


class _Channel(grpc.aio.Channel):
    """A channel before another one. Closing it closes that."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._wrapped(self._channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._wrapped(self._channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._wrapped(self._channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._wrapped(self._channel.stream_stream(*args, **kwargs))

    def _wrapped(self, method: Callable[..., Any]) -> Callable[..., Any]:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()


class KeyChannel(_Channel):
    """Sends an API key or a token with every call over a channel. Closing it closes that channel.

    It is no interceptor: when the server ends an intercepted call whose requests are written one by one, grpc.aio leaks the
    task that waits for the next request, and its collection logs that a generator "is already running".
    """

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        super().__init__(channel)
        self._header = ("authorization", f"Bearer {key}")

    def _wrapped(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*requests: Any, metadata: Any = None, **kwargs: Any) -> Any:
            return method(*requests, metadata=(*(metadata or ()), self._header), **kwargs)

        return call


class RepeatingChannel(_Channel):
    """Makes calls as a policy says. What fails, fails with CallError."""

    def __init__(self, channel: grpc.aio.Channel, policy: Policy) -> None:
        super().__init__(channel)
        self._policy = policy

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return partial(_Answer, self._channel.unary_unary(*args, **kwargs), args[0], self._policy)

    def _wrapped(self, method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: _Call(method(*args, **kwargs))


class _Call:
    """A call of gRPC with what that offers, but with typed errors where it is awaited or walked."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        try:
            return await self._call
        except grpc.aio.AioRpcError as error:
            raise CallError.of(error) from None

    def __aiter__(self) -> AsyncIterator[Any]:
        self._messages = aiter(self._call)
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext(self._messages)
        except grpc.aio.AioRpcError as error:
            raise CallError.of(error) from None


class _Answer(_Call):
    """A call that answers once, and is made again where that is safe. Its metadata is that of the last attempt."""

    def __init__(
        self,
        method: Callable[..., Any],
        path: str,
        policy: Policy,
        request: Any,
        *,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        self._attempts = Attempts(policy, path, request, timeout)
        self._method, self._kwargs = method, kwargs
        super().__init__(self._made())

    def _made(self) -> Any:
        return self._method(self._attempts.request, timeout=self._attempts.timeout, **self._kwargs)

    async def _answer(self) -> Any:
        while True:
            try:
                return await super()._answer()
            except CallError as error:
                delay = self._attempts.wait(error)
            await asyncio.sleep(delay)
            self._call = self._made()
