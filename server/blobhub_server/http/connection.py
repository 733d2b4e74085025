"""One connection to the HTTP port: uvicorn's, with bounds on what it may take before a request is there."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """Closed when it is one too many, or when a request, TLS included, does not come whole within some seconds.

    uvicorn itself ends connections that are idle after a request, and waits for ever for the first one, and for the rest of
    one that has begun.
    """

    def __init__(self, *, max_connections: int, request_seconds: float, **given: Any) -> None:
        super().__init__(**given)
        self._max_connections = max_connections
        self._request_seconds = request_seconds
        self._deadline: asyncio.TimerHandle | None = None
        # What a handler finds in its scope's `state`, so that it can end an answer that it cannot finish.
        self.app_state = {"abort": self._abort}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > self._max_connections:
            transport.abort()
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        """Take in some bytes of a request."""
        self.server_state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        super().data_received(data)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()

    def _expect_request(self) -> None:
        """Wait for the head of a request, if none is under way."""
        if self.conn.their_state is h11.IDLE:
            if self._deadline is None:
                self._deadline = self.loop.call_later(self._request_seconds, self._expire)
        elif self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _abort(self) -> None:
        self.transport.abort()

    def _expire(self) -> None:
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.abort()
