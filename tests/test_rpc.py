"""How calls arrive, through a real channel: all four kinds of RPC in one pipeline, health, drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from blobhub.v1 import organization_pb2
from blobhub_server import logs
from blobhub_server.blobtypes.conformance import reason_of, unpack
from blobhub_server.clock import utc_now
from blobhub_server.config import Settings
from blobhub_server.db.notify import Doorbell
from blobhub_server.errors import BlobHubError, IssuerUnavailable, NotFound, PermissionDenied, ShuttingDown, Unauthenticated
from blobhub_server.rpc.drain import Drain
from blobhub_server.rpc.guard import Guard
from blobhub_server.rpc.pipeline import Pipeline
from blobhub_server.rpc.server import Health, bind, make_server, options, shut_down
from google.rpc import error_details_pb2
from grpc._cython import cygrpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from waiting import DEADLINE_SECONDS, until, within_deadline

Request = organization_pb2.CreateOrganizationRequest
Answer = organization_pb2.CreateOrganizationResponse
GOOD, BAD = Request(alias="acme"), Request(alias="Not An Alias")
KINDS = {
    "One": (grpc.unary_unary_rpc_method_handler, "unary_unary"),
    "Many": (grpc.unary_stream_rpc_method_handler, "unary_stream"),
    "Up": (grpc.stream_unary_rpc_method_handler, "stream_unary"),
    "Both": (grpc.stream_stream_rpc_method_handler, "stream_stream"),
}
KINDS_SERVICE, OPEN_SERVICE = "test.v1.Kinds", "grpc.health.v1.Kinds"
"""A service of ours, and one as gRPC's own are: open to all, and handed gRPC's context."""

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

    def __init__(self, error: Exception | None = None, before: bytes | None = None) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.refusals: list[tuple[str, bool]] = []
        self.before = before
        self.error = error

    def arrive(self, method: str, request: Any, _metadata: Any) -> Admitted:
        self.seen.append((method, request))
        return self

    async def answer(self, make: Callable[[Any], Awaitable[bytes]]) -> bytes:
        await self.recheck()
        return self.before if self.before is not None else await make(self)

    async def admit(self) -> Admitted:
        await self.recheck()
        return self

    async def recheck(self) -> None:
        if self.error is not None:
            raise self.error

    async def refused(self, error: BlobHubError, *, handled: bool) -> None:
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
    ) -> None:
        self.service = service
        self.bell = bell
        self.server = server
        self.health = health
        self.channel = channel
        self.admit = admit

    async def call(self, kind: str, *requests: Request | bytes, timeout: float = DEADLINE_SECONDS) -> list[Answer]:
        """Make a call of that kind; answer all answers."""
        data = [request if isinstance(request, bytes) else request.SerializeToString() for request in requests]
        make = getattr(self.channel, KINDS[kind][1])(f"/{self.service}/{kind}", None, Answer.FromString)
        call = make(data[0] if kind in ("One", "Many") else iter(data), timeout=timeout)
        return [await call] if kind in ("One", "Up") else [answer async for answer in call]

    async def refused(
        self, kind: str, *requests: Request | bytes, timeout: float = DEADLINE_SECONDS
    ) -> grpc.aio.AioRpcError:
        """Make a call that is expected to fail; answer the error."""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.call(kind, *requests, timeout=timeout)
        return raised.value


@asynccontextmanager
async def served(
    admit: Admitted | None = None, service: str = KINDS_SERVICE, **handlers: Callable[..., Any]
) -> AsyncIterator[Served]:
    admit = admit or Admitted()
    bell = Doorbell(Exclusive())
    guard = Guard(bell, utc_now, "access")
    server = make_server(Settings(), Pipeline(admit, guard))
    made = {
        kind: KINDS[kind][0](handler, request_deserializer=Request.FromString, response_serializer=Answer.SerializeToString)
        for kind, handler in (ECHO | handlers).items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, made),))
    health = Health(server, [service])
    address = bind(server, "127.0.0.1:0")
    await server.start()
    await health.serving()
    async with (
        guard.watching(),
        grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel,
    ):
        yield Served(server, health, channel, admit, bell, service)
    await server.stop(0)


def failing(kind: str, fail: Callable[[Any], Any]) -> Callable[..., Any]:
    """A handler of that kind that does `await fail(call)`."""

    async def single(_request, call):
        await fail(call)

    async def stream(_request, call):
        await fail(call)
        yield

    return single if kind in ("One", "Up") else stream


@each_kind
async def test_every_kind_of_call_is_admitted_and_answered(kind: str) -> None:
    async with served() as there:
        answers = await there.call(kind, GOOD)
    assert {answer.organization.alias for answer in answers} == {"acme"}
    assert there.admit.seen == [(f"/test.v1.Kinds/{kind}", GOOD)]


@each_kind
async def test_refusal_comes_before_validation_and_before_the_handler(kind: str) -> None:
    async def never(_call):
        raise AssertionError("the handler ran")

    async with served(Admitted(PermissionDenied()), **{kind: failing(kind, never)}) as there:
        error = await there.refused(kind, BAD)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


@each_kind
async def test_bytes_that_are_no_request_are_an_invalid_argument(kind: str) -> None:
    async with served() as there:
        for data in (b"\xff\xff\xff", b"\x0a\x02\xc3\x28"):  # no fields; a text that is not UTF-8
            error = await there.refused(kind, data)
            assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE_REQUEST")


@each_kind
async def test_a_broken_constraint_names_its_field(kind: str) -> None:
    async with served() as there:
        error = await there.refused(kind, BAD)
    bad = error_details_pb2.BadRequest()
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert unpack(error, bad)
    assert {violation.field for violation in bad.field_violations} == {"alias"}


@each_kind
async def test_errors_of_ours_carry_their_details(kind: str) -> None:
    async def absent(_call):
        raise NotFound("definition", "workflow")

    async with served(**{kind: failing(kind, absent)}) as there:
        error = await there.refused(kind, GOOD)
    info = error_details_pb2.ResourceInfo()
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert unpack(error, info)
    assert (info.resource_type, info.resource_name) == ("definition", "workflow")


@each_kind
async def test_an_unforeseen_error_is_internal_and_says_nothing(kind: str) -> None:
    async def broken(_call):
        raise RuntimeError("the password is swordfish")

    async with served(**{kind: failing(kind, broken)}) as there:
        error = await there.refused(kind, GOOD)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "swordfish" not in f"{error.details()} {error.trailing_metadata()}"


@pytest.mark.parametrize("kind", ["One", "Up"])
async def test_an_answer_of_the_wrong_type_is_internal_and_says_nothing(kind: str) -> None:
    async def wrong(_request, _call):
        return object()

    async with served(**{kind: wrong}) as there:
        error = await there.refused(kind, GOOD)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "object" not in (error.details() or "")


OPEN_KINDS = ("One", "Many", "Both")


@pytest.mark.parametrize("kind", OPEN_KINDS)
async def test_an_abort_of_an_open_service_is_passed_on(kind: str) -> None:
    async def abort(context):
        await context.abort(grpc.StatusCode.DATA_LOSS, "as I said")

    async with served(service=OPEN_SERVICE, **{kind: failing(kind, abort)}) as there:
        error = await there.refused(kind, GOOD)
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "as I said")


@pytest.mark.parametrize("kind", OPEN_KINDS)
async def test_an_open_service_answers_those_whom_the_gate_refuses_and_no_bytes_that_are_no_request(kind: str) -> None:
    async with served(Admitted(PermissionDenied()), service=OPEN_SERVICE) as there:
        assert {answer.organization.alias for answer in await there.call(kind, GOOD)} == {"acme"}
        error = await there.refused(kind, b"\xff\xff\xff")
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE_REQUEST")
        assert there.admit.seen == []


@each_kind
async def test_cancellation_reaches_the_handler(kind: str) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(_call):
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with served(**{kind: failing(kind, wait)}) as there:
        call = asyncio.create_task(there.call(kind, GOOD))
        await started.wait()
        call.cancel()
        await within_deadline(cancelled.wait())


async def test_a_deadline_reaches_the_handler_and_is_no_error_of_the_servers() -> None:
    ended = asyncio.Event()

    async def wait(_call):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with structlog.testing.capture_logs() as logged:
        async with served(One=failing("One", wait)) as there:
            error = await there.refused("One", GOOD, timeout=0.2)
            await within_deadline(ended.wait())
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not [line for line in logged if line["event"] == "internal_error"]


async def test_a_stream_whose_reader_goes_away_is_closed_without_a_word_of_an_error() -> None:
    """Its server is in the middle of a write, for which there is no room: gRPC fails that one before it cancels the call."""
    for _ in range(20):
        closed = asyncio.Event()

        async def flood(_request, _call, closed=closed):
            try:
                while True:
                    yield answering("x" * 100_000)
            finally:
                closed.set()

        async with served(Many=flood) as there:
            make = there.channel.unary_stream("/test.v1.Kinds/Many", None, Answer.FromString)
            call = make(GOOD.SerializeToString())
            await call.read()
            await asyncio.sleep(0.02)  # so that there is no more room, as a rule
            call.cancel()
            await within_deadline(closed.wait())


async def test_every_message_of_a_client_stream_is_validated_and_the_first_is_admitted() -> None:
    async with served() as there:
        (answer,) = await there.call("Up", GOOD, Request(alias="other"))
        assert answer.organization.alias == "acme+other"
        assert [request.alias for _, request in there.admit.seen] == ["acme"]
        for kind in ("Up", "Both"):
            error = await there.refused(kind, GOOD, BAD)
            assert reason_of(error) == "INVALID_REQUEST"
            error = await there.refused(kind, GOOD, b"\xff\xff")
            assert reason_of(error) == "UNDECODABLE_REQUEST"


@pytest.mark.parametrize("kind", ["Up", "Both"])
async def test_a_client_stream_without_a_message_never_reaches_its_handler(kind: str) -> None:
    async def never(_call):
        raise AssertionError("the handler ran")

    async with served(**{kind: failing(kind, never)}) as there:
        error = await there.refused(kind)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_encoded_answers_go_out_as_they_are() -> None:
    async def encoded(request, _call):
        yield answering(request.alias).SerializeToString()
        yield answering(request.alias)

    async with served(Many=encoded) as there:
        assert await there.call("Many", GOOD) == [answering("acme")] * 2


@pytest.mark.parametrize("kind", ["One", "Up"])
async def test_a_remembered_answer_is_given_without_the_handler(kind: str) -> None:
    async def never(_call):
        raise AssertionError("the handler ran")

    before = answering("remembered")
    async with served(Admitted(before=before.SerializeToString()), **{kind: failing(kind, never)}) as there:
        assert await there.call(kind, GOOD) == [before]


async def test_open_handlers_that_write_by_themselves_are_served() -> None:
    async def writes(request, context):
        await context.write(answering(request.alias))

    async with served(service=OPEN_SERVICE, Many=writes) as there:
        assert await there.call("Many", GOOD) == [answering("acme")]


@each_kind
async def test_a_method_that_does_not_exist_is_unimplemented_and_says_why(kind: str) -> None:
    async with served() as there:
        make = getattr(there.channel, KINDS[kind][1])("/test.v1.Kinds/Nothing")
        call = make(b"") if kind in ("One", "Many") else make(iter([b""]))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await (call if kind in ("One", "Up") else call.read())
    assert (raised.value.code(), reason_of(raised.value)) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")


async def test_the_log_has_one_line_a_call_and_nothing_of_what_was_sent() -> None:
    kept = structlog.get_config()
    logs.set_up(Settings(log_level="debug"))
    try:
        with structlog.testing.capture_logs() as logged:
            async with served() as there:
                await there.call("One", GOOD)
                await there.refused("One", BAD)
    finally:
        structlog.configure(**kept)
    assert [(line["log_level"], line["code"]) for line in logged] == [("debug", "OK"), ("info", "INVALID_ARGUMENT")]
    assert all(line.keys() == {"event", "log_level", "method", "code", "ms"} for line in logged)


async def test_health_is_watched_without_a_key_until_the_server_leaves() -> None:
    async with served(Admitted(PermissionDenied())) as there:
        watch = health_pb2_grpc.HealthStub(there.channel).Watch(health_pb2.HealthCheckRequest(service="test.v1.Kinds"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await there.health.leaving()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


async def test_leaving_goes_in_order_health_then_streams_then_the_server() -> None:
    drain, ringing = Drain(), asyncio.Event()
    drain.on_start(ringing.set)
    order: list[str] = []

    async def watching(request, _call):
        yield answering(request.alias)
        await ringing.wait()
        order.append(f"stream ends, draining: {drain.draining}")
        raise ShuttingDown(7)

    async with served(Many=watching) as there:
        leaving = there.health.leaving

        async def recorded() -> None:
            order.append(f"health, draining: {drain.draining}")
            await leaving()

        there.health.leaving = recorded
        make = there.channel.unary_stream("/test.v1.Kinds/Many", None, Answer.FromString)
        call = make(GOOD.SerializeToString())
        await call.read()
        await shut_down(there.server, there.health, drain, DEADLINE_SECONDS)
        order.append("the server has stopped")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
    assert order == ["health, draining: False", "stream ends, draining: True", "the server has stopped"]
    assert (raised.value.code(), reason_of(raised.value)) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    info = error_details_pb2.ErrorInfo()
    assert unpack(raised.value, info)
    assert info.metadata["last_sequence"] == "7"


def test_grpc_knows_every_option_it_is_given() -> None:
    library = Path(cygrpc.__file__).read_bytes()
    for name, _ in options(Settings()):
        assert name.encode() + b"\0" in library, name


STREAMS = ("Many", "Up", "Both")


async def waiting(_request, _call):
    await asyncio.Event().wait()


async def waiting_stream(requests, _call):
    yield answering("first")
    await asyncio.Event().wait()


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_stream_that_is_no_longer_allowed_is_ended_with_the_reason(kind: str) -> None:
    """In the handler's wait, whichever way the stream runs."""
    handler = waiting if kind == "Up" else waiting_stream
    async with served(**{kind: handler}) as made:
        call = asyncio.create_task(made.refused(kind, GOOD))
        await until(lambda: made.admit.seen)
        made.admit.error = Unauthenticated()
        made.bell.ring("access")
        error = await call
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        assert made.admit.refusals == [("UNAUTHENTICATED", True)]


async def test_a_stream_whose_client_reads_nothing_is_ended_too() -> None:
    """The call waits in gRPC's hands for the client to take an answer; it must not wait for ever."""
    ended = asyncio.Event()

    async def flood(_request, _call):
        try:
            while True:
                yield answering("a" * (1 << 20))
        finally:
            ended.set()

    async with served(Many=flood) as made:
        call = made.channel.unary_stream("/test.v1.Kinds/Many")(GOOD.SerializeToString())
        await call.read()
        await asyncio.sleep(0.3)
        made.admit.error = Unauthenticated()
        made.bell.ring("access")
        await within_deadline(ended.wait())
        call.cancel()


async def test_a_stream_of_which_nothing_can_be_told_goes_on_until_it_can() -> None:
    async with served(Many=waiting_stream) as made:
        call = asyncio.create_task(made.refused("Many", GOOD))
        await until(lambda: made.admit.seen)
        made.admit.error = IssuerUnavailable()
        made.bell.ring("access")
        await asyncio.sleep(0.1)
        assert not call.done()
        made.admit.error = PermissionDenied()
        assert (await call).code() is grpc.StatusCode.PERMISSION_DENIED


async def test_what_ends_with_an_error_is_reported_with_how_far_it_came() -> None:
    async def absent(_call):
        raise NotFound("definition", "workflow")

    async with served(One=failing("One", absent)) as made:
        await made.refused("One", BAD)
        await made.refused("One", GOOD)
        assert made.admit.refusals == [("INVALID_REQUEST", False), ("NOT_FOUND", True)]
