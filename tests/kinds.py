"""A server with a method of each kind of RPC, behind the pipeline and a gate that admits everybody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from blobhub.v1 import organization_pb2
from blobhub_server.clock import utc_now
from blobhub_server.config import Settings
from blobhub_server.db.notify import Doorbell
from blobhub_server.db.trouble import Trouble
from blobhub_server.errors import BlobHubError
from blobhub_server.rpc.guard import Guard
from blobhub_server.rpc.pipeline import Pipeline
from blobhub_server.rpc.room import Sender, address_of
from blobhub_server.rpc.server import Health, bind, make_server
from waiting import DEADLINE_SECONDS

Request = organization_pb2.CreateOrganizationRequest
Answer = organization_pb2.CreateOrganizationResponse
GOOD = Request(alias="acme")
BAD = Request(alias="Not An Alias")
KINDS = {
    "One": (grpc.unary_unary_rpc_method_handler, "unary_unary"),
    "Many": (grpc.unary_stream_rpc_method_handler, "unary_stream"),
    "Up": (grpc.stream_unary_rpc_method_handler, "stream_unary"),
    "Both": (grpc.stream_stream_rpc_method_handler, "stream_stream"),
}
KINDS_SERVICE = "test.v1.Kinds"
OPEN_SERVICE = "grpc.health.v1.Kinds"
"""As gRPC's own are: open to all, and handed gRPC's context."""

each_kind = pytest.mark.parametrize("kind", KINDS)


def answering(alias: str) -> Answer:
    return Answer(organization=organization_pb2.Organization(alias=alias))


async def one(request, _call):
    return answering(request.alias)


async def many(request, _call):
    yield answering(request.alias)
    yield answering(request.alias)


async def up(requests, _call):
    return answering("+".join([request.alias async for request in requests]))


async def both(requests, _call):
    async for request in requests:
        yield answering(request.alias)


ECHO = {"One": one, "Many": many, "Up": up, "Both": both}


class Admitted:
    """Admits everybody, as a gate and as the way past it, and keeps what it saw. Handlers get itself as their call."""

    expire_time = None
    last_sequence = None
    changes = False

    def __init__(self, error: Exception | None = None, before: bytes | None = None) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.refusals: list[tuple[str, bool]] = []
        self.before = before
        self.error = error

    def arrive(self, method: str, request: Any, _metadata: Any) -> Admitted:
        self.seen.append((method, request))
        return self

    def screen(self, _metadata: Any) -> None:
        """Every key has the form of one."""

    def known_sender(self, metadata: Any) -> Sender | None:
        """Those who say so are known, by what they say."""
        name = dict(metadata or ()).get("known")
        return Sender(name=name, known=True) if name else None

    def sender(self, *about: Any) -> Any:
        """Of a call that was admitted, about its peer, or of one that nothing was read of, about its metadata too."""
        if len(about) == 1:
            return Sender(name=address_of(about[-1]), known=True)
        return asyncio.sleep(0, self.known_sender(about[0]) or Sender(name=address_of(about[-1]), known=False))

    async def identify(self) -> None:
        """Everybody is known."""

    async def answer(self, make: Callable[[Any], Awaitable[bytes]]) -> bytes:
        await self.recheck()
        return self.before if self.before is not None else await make(self)

    async def admit(self) -> Admitted:
        await self.recheck()
        return self

    async def recheck(self) -> None:
        if self.error is not None:
            raise self.error

    async def record_failure(self, error: BlobHubError, *, handled: bool) -> None:
        self.refusals.append((error.reason, handled))


class Exclusive:
    """Stands for a database that no other server has open: the doorbell asks for no more."""

    exclusive = True


class Served:
    """A server with one method of each kind, and a channel to it."""

    def __init__(
        self,
        server: grpc.aio.Server,
        health: Health,
        channel: grpc.aio.Channel,
        admit: Admitted,
        bell: Doorbell,
        service: str,
        address: str,
        guard: Guard,
    ) -> None:
        self.guard = guard
        self.address = address
        self.service = service
        self.bell = bell
        self.server = server
        self.health = health
        self.channel = channel
        self.admit = admit

    async def call(self, kind: str, *requests: Request | bytes, timeout: float = DEADLINE_SECONDS) -> list[Answer]:
        """Make a call of that kind; answer all answers."""
        call = self.begin(kind, *requests, timeout=timeout)
        return [await call] if kind in ("One", "Up") else [answer async for answer in call]

    def begin(self, kind: str, *requests: Request | bytes, timeout: float = DEADLINE_SECONDS) -> Any:
        """Begin a call of that kind."""
        data = [request if isinstance(request, bytes) else request.SerializeToString() for request in requests]
        make = getattr(self.channel, KINDS[kind][1])(f"/{self.service}/{kind}", None, Answer.FromString)
        return make(data[0] if kind in ("One", "Many") else iter(data), timeout=timeout)

    async def refused(
        self, kind: str, *requests: Request | bytes, timeout: float = DEADLINE_SECONDS
    ) -> grpc.aio.AioRpcError:
        """Make a call that is expected to fail; answer the error."""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.call(kind, *requests, timeout=timeout)
        return raised.value


@asynccontextmanager
async def served(
    admit: Admitted | None = None,
    service: str = KINDS_SERVICE,
    settings: Settings | None = None,
    **handlers: Callable[..., Any],
) -> AsyncIterator[Served]:
    admit, settings = admit or Admitted(), settings or Settings()
    bell = Doorbell(Exclusive())
    guard = Guard(bell, utc_now, "access", max_unread_seconds=settings.max_unread_seconds)
    server = make_server(settings, Pipeline(admit, guard, Trouble(), settings))
    made = {
        kind: KINDS[kind][0](handler, request_deserializer=Request.FromString, response_serializer=Answer.SerializeToString)
        for kind, handler in (ECHO | handlers).items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, made),))
    health = Health(server, [service])
    address = bind(server, "127.0.0.1:0")
    await server.start()
    await health.set_ready(True)
    async with (
        guard.watching(),
        grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel,
    ):
        yield Served(server, health, channel, admit, bell, service, address, guard)
    await server.stop(0)


def failing(kind: str, fail: Callable[[Any], Any]) -> Callable[..., Any]:
    """A handler of that kind that does `await fail(call)`."""

    async def single(_request, call):
        await fail(call)

    async def stream(_request, call):
        await fail(call)
        yield

    return single if kind in ("One", "Up") else stream
