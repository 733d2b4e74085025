"""Watches never skip, never repeat, never reorder, however often they are cut."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import acme
import flows
import grpc
import pytest
from blobhub.v1 import audit_pb2, blob_pb2, event_pb2, execution_pb2, session_object_pb2, session_pb2
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from google.protobuf.struct_pb2 import Value
from google.rpc import error_details_pb2
from scale import scaled
from served import Api, Served, connected, served
from waiting import read_to_end

ROUNDS = scaled(200, least=20)
WRITERS = 8


async def cut_watch(server: Served, session_id: str, after: int, messages: int) -> list[bytes]:
    """Watch from a position over a channel of its own, and drop it after some messages, or at the end of the log."""
    seen: list[bytes] = []
    async with connected(server.address, server.admin_key) as api:
        request = session_pb2.WatchSessionRequest(session=session_id, after_session_sequence=after)
        call = api.sessions.WatchSession(request)
        async for message in call:
            seen += [event.SerializeToString(deterministic=True) for event in message.events]
            messages -= 1
            if messages <= 0:
                call.cancel()
                break
    return seen


async def write(api: Api, session_id: str, stop: asyncio.Event) -> None:
    """Run executions and change objects until told to stop."""
    while not stop.is_set():
        await api.executions.StartExecution(
            execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"})
        )
        await api.session_objects.PutSessionObject(
            session_object_pb2.PutSessionObjectRequest(session=session_id, alias="note", value=Value(string_value="x"))
        )


async def full_log(api: Api, session_id: str) -> list[bytes]:
    call = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id, replay_only=True))
    return [event.SerializeToString(deterministic=True) async for message in call for event in message.events]


@pytest.mark.timeout(3600)
async def test_cut_watchers_resume_without_gap_repeat_or_reordering(server: Served, api: Api) -> None:
    seed = random.Random(7)
    session_id = await api.session(flows.steps(3))
    stop = asyncio.Event()
    writers = [asyncio.create_task(write(api, session_id, stop)) for _ in range(WRITERS)]
    seen: list[bytes] = []
    for _ in range(ROUNDS):
        seen += await cut_watch(server, session_id, len(seen), seed.randint(1, 6))
    stop.set()
    await asyncio.gather(*writers)
    await api.sessions.CloseSession(session_pb2.CloseSessionRequest(session=session_id))
    rest = await cut_watch(server, session_id, len(seen), 1 << 30)
    late = await full_log(api, session_id)
    assert seen + rest == late, "the cut watcher and the late one saw different logs"
    events = [event_pb2.Event.FromString(line) for line in late]
    assert [event.session_sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].type == "session_closed"
    numbers: dict[str, int] = {}
    for event in events:
        if event.execution_id:
            assert event.execution_sequence == numbers.get(event.execution_id, 0) + 1
            numbers[event.execution_id] = event.execution_sequence


async def test_a_watch_ends_at_the_terminal_event_even_when_resumed_there(api: Api) -> None:
    session_id = await api.session(flows.steps(2))
    started = await api.executions.StartExecution(
        execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"})
    )
    request = execution_pb2.WatchExecutionRequest(execution=started.execution.id)
    events = [event async for message in api.executions.WatchExecution(request) for event in message.events]
    assert events[-1].type == "flow.exited"
    request.after_execution_sequence = events[-1].execution_sequence
    assert [message async for message in api.executions.WatchExecution(request)] == []


async def test_a_watch_from_behind_the_end_is_out_of_range(api: Api) -> None:
    session_id = await api.session(flows.steps(2))
    request = session_pb2.WatchSessionRequest(session=session_id, after_session_sequence=99)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        _ = [message async for message in api.sessions.WatchSession(request)]
    assert raised.value.code() == grpc.StatusCode.OUT_OF_RANGE


async def test_an_idle_watch_gets_signs_of_life(tmp_path) -> None:
    from served import served  # noqa: PLC0415  a server with other settings than the fixture's

    async with (
        served(tmp_path / "data", progress_seconds=0.05) as server,
        connected(server.address, server.admin_key) as api,
    ):
        session_id = await api.session(flows.steps(2))
        call = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id))
        async for message in call:
            assert message.HasField("progress")
            assert message.progress.sequence == 0
            call.cancel()
            break


async def test_watches_of_the_platform_say_where_to_resume_when_the_server_goes_away(
    tmp_path: Path, database_url: str
) -> None:
    async with AsyncExitStack() as stack:
        async with served(tmp_path / "data", database_url) as server:
            api = await stack.enter_async_context(connected(server.address, server.admin_key))
            await acme.organization(api)
            await acme.blob(api)
            await acme.update_blob(api, description="changed")
            watches = {
                2: api.blobs.WatchBlob(blob_pb2.WatchBlobRequest(blob="acme/pipeline")),
                4: api.audit.WatchAuditEntries(audit_pb2.WatchAuditEntriesRequest(parent="-")),
            }
            for watch in watches.values():
                await watch.read()
        for last, watch in watches.items():
            error = await expect_refusal(watch.read(), grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
            info = error_details_pb2.ErrorInfo()
            assert unpack(error, info)
            assert info.metadata["last_sequence"] == str(last)


async def test_a_watch_of_the_whole_server_goes_on_when_others_lose_access(server: Served, api: Api) -> None:
    await acme.organization(api)
    everything = api.audit.WatchAuditEntries(audit_pb2.WatchAuditEntriesRequest(parent="-"))
    for name in (
        "ann",
        "bob",
    ):  # when the second one's watch has ended, the round of checks that ended the first one's is over
        async with acme.person(server, api, name, ("acme", acme.ADMIN)) as lost:
            watch = lost.audit.WatchAuditEntries(audit_pb2.WatchAuditEntriesRequest(parent="acme"))
            assert (await watch.read()).entries
            await acme.update_user(api, f"@{name}", disabled=True)
            await expect_refusal(read_to_end(watch), grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    await acme.delete_organization(api)
    async for batch in everything:
        if batch.entries[-1].method.endswith("/DeleteOrganization"):
            break
    everything.cancel()


async def test_a_session_tells_the_first_and_the_last_number_of_its_log(api: Api) -> None:
    session_id = await api.session(flows.steps(3))
    get = session_pb2.GetSessionRequest(session=session_id)
    session = (await api.sessions.GetSession(get)).session
    assert (session.first_session_sequence, session.last_session_sequence) == (0, 0)
    request = execution_pb2.RunExecutionRequest(session=session_id, spec={"definition": "workflow"})
    _ = [message async for message in api.executions.RunExecution(request)]
    session = (await api.sessions.GetSession(get)).session
    assert (session.first_session_sequence, session.last_session_sequence) == (1, 12)
