"""A channel that sends a key."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc


class KeyChannel(grpc.aio.Channel):
    """Sends an API key or a token with every call over a channel. Closing it closes that channel.

    It is no interceptor: when the server ends an intercepted call whose requests are written one by one, grpc.aio leaks the
    task that waits for the next request, and its collection logs that a generator "is already running".
    """

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self._channel = channel
        self._header = ("authorization", f"Bearer {key}")

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._with_key(self._channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._with_key(self._channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._with_key(self._channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._with_key(self._channel.stream_stream(*args, **kwargs))

    def _with_key(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*requests: Any, metadata: Any = None, **kwargs: Any) -> Any:
            return method(*requests, metadata=(*(metadata or ()), self._header), **kwargs)

        return call

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
