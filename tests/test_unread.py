"""Streams whose clients do not read: they hold little, are ended, and lose nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import flows
import grpc
import psutil
import structlog
from blobhub.v1 import execution_pb2, session_pb2
from blobhub_server.config import Settings
from figures import Figure
from kinds import GOOD, answering
from kinds import served as serving_kinds
from raw_http2 import details, raw_connection
from scale import scaled
from served import ServerProcess, connected, served
from waiting import until

WATCH = "/blobhub.v1.SessionService/WatchSession"
TALK = "for i in range(300):\n    emit_output('y' * 9216)"
"""Its log is many times what the windows of a client that does not read take."""
STREAMS = scaled(400, least=100)
MAX_STREAM_BYTES = 256 << 10


async def test_a_stream_that_nobody_reads_is_ended_and_resumes_with_nothing_lost(tmp_path: Path, database_url: str) -> None:
    async with (
        served(tmp_path / "data", database_url, max_unread_seconds=0.5) as server,
        connected(server.address, server.admin_key) as api,
        raw_connection(server.address) as raw,
    ):
        session_id = await api.session(flows.code(TALK))
        run = execution_pb2.RunExecutionRequest(session=session_id, spec={"definition": "workflow"})
        _ = [message async for message in api.executions.RunExecution(run)]
        request = session_pb2.WatchSessionRequest(session=session_id)
        with structlog.testing.capture_logs() as logged:
            unread = raw.begin(WATCH, request.SerializeToString(), key=server.admin_key)
            await until(lambda: any(line.get("code") == "UNAVAILABLE" for line in logged))
        assert raw.calls[unread].code is None, "the status comes after what was sent before, which nobody has read"
        call = await raw.read(unread)
        info, retry = details(call)
        assert (call.code, info.reason) == (grpc.StatusCode.UNAVAILABLE.value[0], "STREAM_UNREAD")
        assert retry.HasField("retry_delay")
        seen = [
            event.session_sequence
            for message in call.messages()
            for event in session_pb2.WatchSessionResponse.FromString(message).events
        ]
        assert info.metadata["last_sequence"] == str(seen[-1])
        rest = session_pb2.WatchSessionRequest(session=session_id, after_session_sequence=seen[-1], replay_only=True)
        assert seen[-1] < 300
        seen += [event.session_sequence async for message in api.sessions.WatchSession(rest) for event in message.events]
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) > 300


async def test_streams_that_nobody_reads_hold_little_memory(tmp_path: Path, figure: Figure) -> None:
    server = ServerProcess(tmp_path / "data", log=tmp_path / "log", max_streams_per_caller=STREAMS)
    async with server.running(), connected(server.address, server.admin_key) as api:
        session_id = await api.session(flows.code(TALK))
        run = execution_pb2.RunExecutionRequest(session=session_id, spec={"definition": "workflow"})
        _ = [message async for message in api.executions.RunExecution(run)]
        request = session_pb2.WatchSessionRequest(session=session_id).SerializeToString()
        process = psutil.Process(server.pid)
        before = process.memory_info().rss
        async with raw_connection(server.address) as raw:
            calls = [raw.begin(WATCH, request, key=server.admin_key) for _ in range(STREAMS)]
            await until(lambda: sum(len(raw.calls[call].data) > 0 for call in calls) > 0)
            await asyncio.sleep(2)  # so that all have been written to; those that have not hold less
            held = (process.memory_info().rss - before) / STREAMS
        figure(f"{STREAMS} streams that nobody reads hold {held / 1024:.0f} KiB each")
        assert held < MAX_STREAM_BYTES


async def test_a_stream_that_is_read_slowly_goes_on() -> None:
    async def slow(_request, _call):
        for number in range(20):
            yield answering(str(number) + "a" * 50_000)
            await asyncio.sleep(0.1)

    async with serving_kinds(Many=slow, settings=Settings(max_unread_seconds=0.5)) as there:
        assert len(await there.call("Many", GOOD)) == 20
