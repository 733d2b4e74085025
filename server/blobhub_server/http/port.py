"""The process's HTTP port: uvicorn's protocol on the server's own event loop, with the server's own shutdown.

uvicorn's own server is left out: it takes the signals, and sleeps in steps of 0.1 s to see whether it should end.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from starlette.routing import BaseRoute, Router
from uvicorn import Config
from uvicorn.server import ServerState

from blobhub_server.config import Settings
from blobhub_server.http.connection import Connection
from blobhub_server.start import PortInUse

MAX_HEAD_BYTES = 16 << 10
"""How long the head of a request may be."""


class HttpPort:
    """A port that is served on, at an address and a URL."""

    def __init__(self, state: ServerState, server: asyncio.Server, address: str, *, secure: bool) -> None:
        self.address = address
        self.url = f"{'https' if secure else 'http'}://{address}"
        self._state = state
        self._server = server

    async def shut_down(self, seconds: float) -> None:
        """Accept nothing more, give what is under way so many seconds, and end the rest."""
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._state.connections or self._state.tasks:  # noqa: ASYNC110  they are plain sets of uvicorn's
                    await asyncio.sleep(0.02)
        for connection in list(self._state.connections):
            connection.transport.abort()
        left = list(self._state.tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


@asynccontextmanager
async def listening(routes: Sequence[BaseRoute], settings: Settings, tls: ssl.SSLContext | None) -> AsyncIterator[HttpPort]:
    """Serve routes on the address of the settings; leave to end everything at once. Raises PortInUse."""
    config = Config(
        Router(routes, redirect_slashes=False),
        interface="asgi3",
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=max(1, int(settings.max_connection_idle_seconds)),
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    config.load()
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # Not a line for each request that is none.
    state = ServerState()

    def connected() -> Connection:
        return Connection(
            config=config,
            server_state=state,
            app_state={},
            max_connections=settings.max_connections,
            request_seconds=settings.handshake_seconds,
        )

    listener = _bind(settings.http_listen)
    handshake = settings.handshake_seconds if tls else None
    server = await asyncio.get_running_loop().create_server(
        connected, sock=listener, ssl=tls, ssl_handshake_timeout=handshake
    )
    address = f"{settings.http_listen.rpartition(':')[0]}:{listener.getsockname()[1]}"
    port = HttpPort(state, server, address, secure=tls is not None)
    try:
        yield port
    finally:
        await port.shut_down(0)


def _bind(listen: str) -> socket.socket:
    """A socket that listens on an address. Raises PortInUse."""
    host, _, port = listen.rpartition(":")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError:
        raise PortInUse(listen) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise PortInUse(listen) from None
    return listener
