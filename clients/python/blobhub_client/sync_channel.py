"""A channel of gRPC that sends a key, and whose calls have deadlines, are repeated and fail with typed errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from blobhub_client.errors import CallError
from blobhub_client.policy import Attempts, Policy


class RepeatingChannel(grpc.Channel):
    """Makes calls over a channel as a policy says. What fails, fails with CallError. Closing it closes that channel."""

    def __init__(self, channel: grpc.Channel, policy: Policy, key: str | None = None) -> None:
        self._channel, self._policy = channel, policy
        self._headers = (("authorization", f"Bearer {key}"),) if key else ()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _Answering(self._channel.unary_unary(*args, **kwargs), self._headers, args[0], self._policy)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _Streaming(self._channel.unary_stream(*args, **kwargs), self._headers)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(self._channel.stream_unary(*args, **kwargs), self._headers)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _Streaming(self._channel.stream_stream(*args, **kwargs), self._headers)

    def subscribe(self, callback: Any, try_to_connect: Any = False) -> None:
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Method:
    """A method with what gRPC offers for it, to which each call sends the headers."""

    def __init__(self, method: Any, headers: tuple[tuple[str, str], ...]) -> None:
        self._method, self._headers = method, headers

    def __call__(self, requests: Any, **options: Any) -> Any:
        return self.with_call(requests, **options)[0]

    def with_call(self, requests: Any, **options: Any) -> Any:
        """The answer, and the call. Raises CallError."""
        return self._typed(self._method.with_call, requests, **options)

    def future(self, requests: Any, **options: Any) -> Any:
        """The call under way, which is made once, and fails with gRPC's own error."""
        return self._method.future(requests, **self._sent(options))

    def _typed(self, call: Callable[..., Any], requests: Any, **options: Any) -> Any:
        try:
            return call(requests, **self._sent(options))
        except grpc.RpcError as error:
            raise CallError.of(error) from None

    def _sent(self, options: dict[str, Any]) -> dict[str, Any]:
        return options | {"metadata": (*(options.get("metadata") or ()), *self._headers)}


class _Answering(_Method):
    """A method that answers once. Its calls are made again where that is safe."""

    def __init__(self, method: Any, headers: tuple[tuple[str, str], ...], path: str, policy: Policy) -> None:
        super().__init__(method, headers)
        self._path, self._policy = path, policy

    def with_call(self, requests: Any, *, timeout: float | None = None, **options: Any) -> Any:
        attempts = Attempts(self._policy, self._path, requests, timeout)
        while True:
            try:
                return self._typed(self._method.with_call, attempts.request, timeout=attempts.timeout, **options)
            except CallError as error:
                delay = attempts.wait(error)
            time.sleep(delay)


class _Streaming(_Method):
    """A method that answers with a stream."""

    def __call__(self, requests: Any, **options: Any) -> Any:
        return _Stream(self._method(requests, **self._sent(options)))


class _Stream:
    """A call of gRPC with what that offers, but with typed errors where it is walked."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise CallError.of(error) from None
