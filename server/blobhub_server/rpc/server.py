"""The gRPC server: its options, its address, its health and its shutdown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from blobhub_server.config import Settings
from blobhub_server.rpc.drain import Drain
from blobhub_server.rpc.pipeline import Pipeline
from blobhub_server.rpc.port import MAX_MESSAGE_BYTES
from blobhub_server.rpc.tls import TlsFiles
from blobhub_server.start import PortInUse

MAX_UNREQUESTED_SECONDS = 3600
MAX_PENDING_CALLS = 3_000
"""How many calls may wait for the loop to take them up. Each holds 15 KiB, and up to 80 with what it has sent already."""


def make_server(settings: Settings, pipeline: Pipeline) -> grpc.aio.Server:
    """A server that is not listening yet.

    Streams per connection are bounded, against rapid resets (CVE-2023-44487), and so is the number of connections. Clients
    may ping every 10 s, streams or not. Connections are closed after a while, so that a load balancer can spread clients
    over the servers; so are those that never speak HTTP/2, that have no call for long, or whose client answers no pings.
    """
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_about_the_server)
    return grpc.aio.server(interceptors=(pipeline,), options=options(settings, pipeline.bounds.max_message_bytes))


def _is_about_the_server(record: logging.LogRecord) -> bool:
    """Whether a line of gRPC's is worth writing: not the traceback for each client that has gone without its answer."""
    return not str(record.msg).startswith("ExecuteBatchError raised in core")


def options(settings: Settings, max_message_bytes: int = MAX_MESSAGE_BYTES) -> tuple[tuple[str, int], ...]:
    """The channel arguments. gRPC ignores unknown ones silently, so a test checks that it knows these."""
    age, handshake = _milliseconds(settings.max_connection_age_seconds), _milliseconds(settings.handshake_seconds)
    answer = _milliseconds(settings.keepalive_seconds / 3)
    return (
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.http2.min_ping_interval_without_data_ms", 9_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", _milliseconds(settings.keepalive_seconds)),
        # The timeout of pings is the one that closes the connection; that of keepalives does nothing while it is longer.
        ("grpc.keepalive_timeout_ms", answer),
        ("grpc.http2.ping_timeout_ms", answer),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", handshake),
        ("grpc.http2.settings_timeout", handshake),
        # A call that the loop has not taken up yet waits for as long as its caller: after 30 s gRPC would answer CANCELLED,
        # which clients take for their own doing.
        ("grpc.server_max_unrequested_time_in_server", MAX_UNREQUESTED_SECONDS),
        # Up to 3,000 may wait. As it comes, gRPC throws a die for each call from the thousandth on, and answers CANCELLED to
        # an honest caller for what others have sent.
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
        ("grpc.max_connection_idle_ms", _milliseconds(settings.max_connection_idle_seconds)),
        ("grpc.max_connection_age_ms", age),
        ("grpc.max_connection_age_grace_ms", age),
        # Windows that grow with the speed of a client would let calls that nobody reads yet hold megabytes each.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
    )


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def bind(server: grpc.aio.Server, listen: str, tls: TlsFiles | None = None) -> str:
    """Bind the address; return it with the real port. Raises PortInUse, BadCertificate."""
    credentials = tls.credentials() if tls else None
    try:
        port = server.add_secure_port(listen, credentials) if credentials else server.add_insecure_port(listen)
    except RuntimeError:
        port = 0
    if port == 0:
        raise PortInUse(listen)
    return f"{listen.rpartition(':')[0]}:{port}"


class Health:
    """`grpc.health.v1`, per service and overall."""

    def __init__(self, server: grpc.aio.Server, services: Sequence[str]) -> None:
        self._servicer = health.aio.HealthServicer()
        self._services = ("", *services)
        self._ended = False
        self.ready = False
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def set_ready(self, ready: bool) -> None:
        """Report every service as SERVING, or as NOT_SERVING for now. After a shutdown has begun that changes nothing."""
        self.ready = ready and not self._ended
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in self._services:
            await self._servicer.set(service, status)

    async def set_not_serving(self) -> None:
        """Report every service as NOT_SERVING from now on."""
        self.ready, self._ended = False, True
        await self._servicer.enter_graceful_shutdown()


@dataclass(frozen=True, slots=True)
class Port:
    """A port of gRPC that is bound: its server, the health of what is served there, and its address."""

    server: grpc.aio.Server
    health: Health
    address: str


class Ports:
    """The ports of one server: they serve together, are ready together, and are shut down together."""

    def __init__(self, ports: Sequence[Port]) -> None:
        self._ports = ports

    @property
    def ready(self) -> bool:
        """Whether health reports that calls are served."""
        return all(port.health.ready for port in self._ports)

    async def start(self) -> None:
        """Begin to serve."""
        for port in self._ports:
            await port.server.start()
        await self.set_ready(True)

    async def set_ready(self, ready: bool) -> None:
        """See `Health.set_ready`."""
        for port in self._ports:
            await port.health.set_ready(ready)

    async def shut_down(self, drain: Drain, seconds: float, other: Callable[[float], Awaitable[None]]) -> None:
        """Shut down in order: health reports it, streams end themselves, then calls in flight get `seconds` to finish.

        `other` is that of a port which is not gRPC's, and has the same time.
        """
        for port in self._ports:
            await port.health.set_not_serving()
        drain.start()
        await asyncio.gather(*(port.server.stop(seconds) for port in self._ports), other(seconds))
