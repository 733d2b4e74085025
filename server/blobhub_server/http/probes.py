"""What operators ask without a key: whether the process lives, whether it is ready, and its metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric


class Collector(Protocol):
    """Gives metrics when it is asked."""

    def collect(self) -> Iterable[Metric]:
        """The metrics, as they are now."""


class Probes:
    """The routes `/livez`, `/readyz` and `/metrics`. Nothing of what they tell is about anybody's data."""

    def __init__(self, ready: Callable[[], bool], collectors: Sequence[Collector]) -> None:
        self._ready = ready
        self._collectors = collectors
        self._registry: CollectorRegistry | None = None

    def routes(self) -> list[BaseRoute]:
        """The routes."""
        return [
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
            Route("/metrics", self._metrics),
        ]

    async def _livez(self, _: Request) -> Response:
        """The event loop goes round."""
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        """As `grpc.health.v1` says: not while the storage cannot be used, and not once a shutdown has begun."""
        return PlainTextResponse("ok\n") if self._ready() else PlainTextResponse("not ready\n", status_code=503)

    async def _metrics(self, _: Request) -> Response:
        """In Prometheus' text format. Written in a thread, because it takes milliseconds."""
        return await asyncio.to_thread(self._write)

    def _write(self) -> Response:
        import prometheus_client as prometheus  # noqa: PLC0415  needed when somebody asks, and not at each start

        if self._registry is None:
            registry = prometheus.CollectorRegistry()
            for collector in (*self._collectors, prometheus.GC_COLLECTOR, prometheus.PLATFORM_COLLECTOR):
                registry.register(collector)
            prometheus.ProcessCollector(registry=registry)
            self._registry = registry
        return Response(prometheus.generate_latest(self._registry), media_type=prometheus.CONTENT_TYPE_LATEST)
