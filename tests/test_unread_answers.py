"""Answers that nobody reads: they are kept up to a bound, further ones are refused, and their connection is ended."""

from __future__ import annotations

import asyncio
import json
from copy import copy
from pathlib import Path
from typing import Any

import acme
import flows
import grpc
import pytest
import structlog
from blobhub.v1 import definition_pb2, execution_pb2, session_pb2
from blobhub_server.config import Settings
from blobhub_server.rpc import unread
from blobhub_server.rpc.connection import end_connection
from blobhub_server.rpc.room import Sender
from figures import Figure
from kinds import GOOD, Admitted, answering
from kinds import served as serving_kinds
from meter import MeteredServer
from raw_http2 import RawCall, RawConnection, details, raw_connection
from scale import scaled
from served import connected, served
from waiting import until, within_deadline

ONE = "/test.v1.Kinds/One"
GET = "/blobhub.v1.DefinitionService/GetDefinition"
WATCH = "/blobhub.v1.SessionService/WatchSession"
ANSWER_BYTES = 780_000
MESSAGE_BYTES = answering("a" * ANSWER_BYTES).ByteSize()
FITTING = unread.MAX_BYTES_PER_SENDER // MESSAGE_BYTES
CALLS = scaled(600, least=200)
TALK = "for i in range(4):\n    emit_output('y' * 900_000)"
REFUSED = (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "OVERLOADED")


class Named(Admitted):
    """Admits everybody by the name that they say they are known by."""

    name = "nobody"

    def arrive(self, method: str, request: Any, metadata: Any) -> Named:
        arrived = copy(self)
        arrived.name = dict(metadata).get("known", "nobody")
        return arrived

    def sender(self, *about: Any) -> Any:
        return Sender(name=self.name, known=True) if len(about) == 1 else super().sender(*about)


async def large(_request: Any, _call: Any) -> Any:
    return answering("a" * ANSWER_BYTES)


def begin(raw: RawConnection, count: int, name: str) -> list[RawCall]:
    """Calls of one known caller, whose answers are not read."""
    return [raw.calls[raw.begin(ONE, GOOD.SerializeToString(), known=name)] for _ in range(count)]


def refusal(call: RawCall) -> tuple[int | None, str]:
    return call.code, details(call)[0].reason


async def test_calls_whose_answers_are_not_read_are_refused_beyond_a_bound_and_others_are_served() -> None:
    async with serving_kinds(Named(), One=large) as there, raw_connection(there.address) as raw:
        calls = begin(raw, 3 * FITTING, "hoarder")
        await until(lambda: sum(call.ended for call in calls) >= 2 * FITTING)
        refused = [call for call in calls if call.ended]
        assert {refusal(call) for call in refused} == {REFUSED}
        assert all(details(call)[1].HasField("retry_delay") for call in refused)
        assert len(refused) == 2 * FITTING
        assert await there.call("One", GOOD) == [await large(None, None)]
        small = begin(raw, 1, "hoarder")
        await until(lambda: small[0].ended)
    async with serving_kinds(Named(), One=large) as there, raw_connection(there.address) as raw:
        begin(raw, FITTING, "hoarder")
        unread_answers = there.guard.unread
        await until(lambda: unread_answers.total_bytes >= FITTING * MESSAGE_BYTES)
        await within_deadline(_gone(raw))
        await until(lambda: unread_answers.total_bytes == 0)


async def _gone(raw: RawConnection) -> None:
    """Have the client close its connection."""
    raw.close()
    await raw.closed.wait()


async def test_the_answer_of_a_change_is_sent_whatever_waits_and_the_next_call_is_refused() -> None:
    admitted = Named()
    admitted.changes = True
    made = 0

    async def change(_request: Any, _call: Any) -> Any:
        nonlocal made
        made += 1
        await asyncio.sleep(0.05)  # so that all have begun before one is answered
        return answering("a" * ANSWER_BYTES)

    async with serving_kinds(admitted, One=change) as there, raw_connection(there.address) as raw:
        calls = begin(raw, 3 * FITTING, "hoarder")
        await until(lambda: made + sum(call.ended for call in calls) == len(calls))
        assert {refusal(call) for call in calls if call.ended} <= {REFUSED}
        await until(lambda: there.guard.unread.total_bytes == made * MESSAGE_BYTES)
        late = begin(raw, 1, "hoarder")[0]
        await until(lambda: late.ended)
        assert refusal(late) == REFUSED


async def test_a_connection_that_takes_no_answers_is_ended_and_a_slow_one_is_not() -> None:
    settings = Settings(max_unread_seconds=0.2)
    with structlog.testing.capture_logs() as logged:
        async with (
            serving_kinds(Named(), One=large, settings=settings) as there,
            raw_connection(there.address) as slow,
            raw_connection(there.address) as raw,
        ):
            begin(slow, 2, "slow")
            begin(raw, FITTING, "hoarder")
            await within_deadline(raw.closed.wait())
            await until(lambda: there.guard.unread.total_bytes == 2 * MESSAGE_BYTES)
            assert not slow.closed.is_set()
            assert await there.call("One", GOOD) == [await large(None, None)]
    (line,) = [line for line in logged if line["event"] == "connection_ended_unread"]
    assert (line["unread_bytes"] > unread.MAX_LEFT_BYTES, line["log_level"]) == (True, "warning")


async def test_where_all_hold_too_much_the_connections_that_hold_the_most_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "MAX_BYTES", 12 << 20)
    monkeypatch.setattr(unread, "EVICTION_SECONDS", 2.5)
    async with (
        serving_kinds(Named(), One=large) as there,
        raw_connection(there.address) as little,
        raw_connection(there.address) as much,
    ):
        begin(little, 2, "little")
        await until(lambda: there.guard.unread.total_bytes > 2 * ANSWER_BYTES)
        await asyncio.sleep(1.5)  # so that for a while only the little has waited for long enough
        calls = begin(much, FITTING, "much")
        await until(lambda: any(call.ended for call in calls))
        await within_deadline(much.closed.wait())
        assert not little.closed.is_set()
        assert await there.call("One", GOOD) == [await large(None, None)]


async def test_no_connection_is_ended_for_a_peer_that_has_none() -> None:
    async with serving_kinds() as there:
        port = there.address.rpartition(":")[2]
        for peer in (f"ipv4:127.0.0.1:{port}", "ipv6:%5B::1%5D:1", "unix:", "unix:/tmp/socket", "ipv4:nowhere:1", ""):
            assert not await asyncio.to_thread(end_connection, peer)
        assert await there.call("One", GOOD) == [answering("acme")]


async def test_definitions_that_are_asked_for_and_not_read_hold_little_memory(tmp_path: Path, figure: Figure) -> None:
    server = MeteredServer(tmp_path / "data", log=tmp_path / "log", log_level="info")
    document = json.dumps(json.loads(flows.steps(1)) | {"description": "d" * ANSWER_BYTES})
    async with server.running(), connected(server.address, server.admin_key) as api:
        await api.session(flows.steps(1))
        await api.put(document)
        request = definition_pb2.GetDefinitionRequest(definition="acme/pipeline@draft/workflow")
        await api.definitions.GetDefinition(request)
        key = (await acme.key(api, "acme")).key
        server.reset()
        before = server.memory_bytes
        async with raw_connection(server.address) as raw:
            calls = [raw.calls[raw.begin(GET, request.SerializeToString(), key=key)] for _ in range(CALLS)]
            await until(lambda: sum(call.ended for call in calls) > CALLS - 2 * FITTING)
            assert {refusal(call) for call in calls if call.ended} == {REFUSED}
            assert (await within_deadline(api.definitions.GetDefinition(request))).document == document
        most = server.peak_bytes
        held = most - before
    figure(f"{CALLS} answers of {ANSWER_BYTES >> 10} KiB that nobody reads: {held >> 20} MiB, at most {most >> 20} MiB")
    assert held < 128 << 20


async def test_streams_of_large_events_that_nobody_reads_are_ended_and_resume_with_nothing_lost(
    tmp_path: Path, database_url: str
) -> None:
    async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
        session_id = await api.session(flows.code(TALK))
        run = execution_pb2.RunExecutionRequest(session=session_id, spec={"definition": "workflow"})
        _ = [message async for message in api.executions.RunExecution(run)]
        request = session_pb2.WatchSessionRequest(session=session_id).SerializeToString()
        async with raw_connection(server.address) as raw:
            calls = [raw.calls[raw.begin(WATCH, request, key=server.admin_key)] for _ in range(40)]
            call = (await until(lambda: [call for call in calls if call.ended]))[0]
        info, retry = details(call)
        assert (call.code, info.reason) == (grpc.StatusCode.UNAVAILABLE.value[0], "STREAM_UNREAD")
        assert retry.HasField("retry_delay")
        seen = [
            event.session_sequence
            for message in call.messages()
            for event in session_pb2.WatchSessionResponse.FromString(message).events
        ]
        assert info.metadata.get("last_sequence", "0") == str(max(seen, default=0))
        rest = session_pb2.WatchSessionRequest(session=session_id, after_session_sequence=len(seen), replay_only=True)
        seen += [event.session_sequence async for message in api.sessions.WatchSession(rest) for event in message.events]
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) > 4
