"""Streams and their ends, through a real channel: who goes away, who is no longer allowed, what is validated."""

from __future__ import annotations

import asyncio

import grpc
import pytest
import structlog
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.errors import (
    BlobHubError,
    IssuerUnavailable,
    NotFound,
    PermissionDenied,
    StorageFull,
    StorageUnavailable,
    Unauthenticated,
)
from kinds import (
    BAD,
    GOOD,
    OPEN_SERVICE,
    Answer,
    Request,
    answering,
    each_kind,
    failing,
    served,
)
from waiting import read_to_end, until, within_deadline


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
        # The call itself is cancelled: grpc.aio does not always pass on that a task is which awaits one.
        call = there.begin(kind, GOOD)
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


async def test_open_handlers_that_write_by_themselves_are_served() -> None:
    async def writes(request, context):
        await context.write(answering(request.alias))

    async with served(service=OPEN_SERVICE, Many=writes) as there:
        assert await there.call("Many", GOOD) == [answering("acme")]


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


async def test_a_stream_whose_client_reads_nothing_is_ended_and_tells_its_client_once_it_reads() -> None:
    """An answer waits in gRPC's hands for the client to take it; the status comes after that."""
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
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await within_deadline(read_to_end(call))
    assert reason_of(raised.value) == "UNAUTHENTICATED"


@pytest.mark.parametrize("unsure", [IssuerUnavailable(), StorageUnavailable(), StorageFull()])
async def test_a_stream_of_which_nothing_can_be_told_goes_on_until_it_can(unsure: BlobHubError) -> None:
    async with served(Many=waiting_stream) as made:
        call = asyncio.create_task(made.refused("Many", GOOD))
        await until(lambda: made.admit.seen)
        made.admit.error = unsure
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
