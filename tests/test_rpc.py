"""How calls arrive, through a real channel: all four kinds of RPC in one pipeline, health, drain."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
import structlog
from blobhub_server import logs
from blobhub_server.blobtypes.conformance import reason_of, unpack
from blobhub_server.config import Settings
from blobhub_server.errors import NotFound, PermissionDenied
from blobhub_server.rpc.drain import Drain
from blobhub_server.rpc.server import Port, Ports, options
from blobhub_server.rpc.transport_error import ShuttingDown
from google.rpc import error_details_pb2
from grpc._cython import cygrpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kinds import (
    BAD,
    GOOD,
    KINDS,
    OPEN_SERVICE,
    Admitted,
    Answer,
    answering,
    each_kind,
    failing,
    served,
)
from waiting import DEADLINE_SECONDS


@each_kind
async def test_every_kind_of_call_is_admitted_and_answered(kind: str) -> None:
    async with served() as there:
        answers = await there.call(kind, GOOD)
    assert {answer.organization.alias for answer in answers} == {"acme"}
    assert there.admit.seen == [(f"/test.v1.Kinds/{kind}", GOOD)]


@each_kind
async def test_validation_comes_before_refusal_and_that_before_the_handler(kind: str) -> None:
    async def never(_call):
        raise AssertionError("the handler ran")

    async with served(Admitted(PermissionDenied()), **{kind: failing(kind, never)}) as there:
        malformed, sound = await there.refused(kind, BAD), await there.refused(kind, GOOD)
    assert (malformed.code(), reason_of(malformed)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert (sound.code(), reason_of(sound)) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


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
    answered, refused = logged
    assert answered.keys() == {"event", "log_level", "method", "code", "ms"}
    assert refused.keys() == answered.keys() | {"reason", "caller", "peer"}
    assert (refused["reason"], refused["peer"].partition(":")[0]) == ("INVALID_REQUEST", "ipv4")


async def test_health_is_watched_without_a_key_until_the_server_leaves() -> None:
    async with served(Admitted(PermissionDenied())) as there:
        watch = health_pb2_grpc.HealthStub(there.channel).Watch(health_pb2.HealthCheckRequest(service="test.v1.Kinds"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await there.health.set_not_serving()
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
        leaving = there.health.set_not_serving

        async def recorded() -> None:
            order.append(f"health, draining: {drain.draining}")
            await leaving()

        there.health.set_not_serving = recorded
        make = there.channel.unary_stream("/test.v1.Kinds/Many", None, Answer.FromString)
        call = make(GOOD.SerializeToString())
        await call.read()

        async def other_port(seconds: float) -> None:
            assert seconds == DEADLINE_SECONDS
            order.append(f"the other port ends, draining: {drain.draining}")

        port = Port(server=there.server, health=there.health, address=there.address)
        await Ports([port]).shut_down(drain, DEADLINE_SECONDS, other_port)
        order.append("the server has stopped")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
    first, *ends, last = order
    assert (first, last) == ("health, draining: False", "the server has stopped")
    assert sorted(ends) == ["stream ends, draining: True", "the other port ends, draining: True"]
    assert (raised.value.code(), reason_of(raised.value)) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    info = error_details_pb2.ErrorInfo()
    assert unpack(raised.value, info)
    assert info.metadata["last_sequence"] == "7"


def test_grpc_cancels_no_call_that_a_busy_loop_takes_up_late() -> None:
    bound = dict(options(Settings()))["grpc.server_max_unrequested_time_in_server"]
    assert bound >= 600, "gRPC's own is 30 s, and then the client is told that the call was cancelled"


def test_grpc_knows_every_option_it_is_given() -> None:
    library = Path(cygrpc.__file__).read_bytes()
    for name, _ in options(Settings()):
        assert name.encode() + b"\0" in library, name
