"""The Python client: pages, resumed watches, cancelled calls, reasons."""

from __future__ import annotations

import asyncio

import flows
import grpc
import pytest
import schedules
from blobhub.v1 import blob_pb2, execution_pb2, organization_pb2, session_pb2, session_pb2_grpc
from blobhub_client import Client, KeyChannel, connect, page, reason
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from served import WORKFLOW, Api, Served, ServerProcess
from stranger.notes.v1 import notes_pb2, notes_pb2_grpc
from waiting import until

pytestmark = pytest.mark.either_database


async def test_pages_are_walked(server: Served, api: Api) -> None:
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    for number in range(5):
        await api.blobs.CreateBlob(blob_pb2.CreateBlobRequest(organization="acme", alias=f"blob-{number}", type=WORKFLOW))
    async with connect(server.address, server.admin_key) as hub:
        request = blob_pb2.ListBlobsRequest(organization="acme", page_size=2)
        aliases = [blob.alias async for blob in page(hub.blobs.ListBlobs, request)]
    assert aliases == [f"blob-{number}" for number in range(5)]


async def test_a_run_yields_every_event_to_the_end(server: Served, api: Api) -> None:
    session_id = await api.session(flows.steps(3))
    async with connect(server.address, server.admin_key) as hub:
        request = execution_pb2.RunExecutionRequest(session=session_id, spec={"definition": "workflow"})
        events = [event async for event in hub.run(request)]
    assert [event.execution_sequence for event in events] == list(range(1, 13))
    assert events[-1].type == "flow.exited"


async def test_leaving_the_loop_cancels_the_call(server: Served, api: Api) -> None:
    session_id = await api.session(flows.steps(3))
    await api.executions.StartExecution(
        execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"})
    )
    before = len(asyncio.all_tasks())
    async with connect(server.address, server.admin_key) as hub:
        watch = hub.watch_session(session_id)
        async for _ in watch:
            break
        await watch.aclose()
        await until(lambda: len(asyncio.all_tasks()) <= before)


async def test_an_upload_that_the_server_ends_leaves_no_task_behind(server: Served) -> None:
    """It would wait for the next request for ever, and complain when it is collected."""
    async with connect(server.address, server.admin_key) as hub:
        before = len(asyncio.all_tasks())
        for _ in range(10):
            upload = notes_pb2_grpc.NotesServiceStub(hub.channel).UploadNote()
            await upload.write(notes_pb2.UploadNoteRequest(revision="no/such@draft", name="note", text="a beginning"))
            with pytest.raises(grpc.aio.AioRpcError):
                await upload
        await until(lambda: len(asyncio.all_tasks()) <= before)


async def test_an_error_says_its_reason(server: Served) -> None:
    async with connect(server.address, server.admin_key) as hub:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await hub.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="no/such"))
    assert reason(raised.value) == "NOT_FOUND"


async def test_a_watch_goes_on_when_the_server_comes_back(tmp_path, database_url: str) -> None:
    """The server is told to go away in the middle of a run, and comes back at the same address."""
    first = ServerProcess(tmp_path / "data", database_url, lease_seconds=1)
    await first.start()
    async with connect(first.address, first.admin_key) as hub:
        api = Api(hub.channel, None)
        session_id = await api.session(flows.delay(1.5))
        request = execution_pb2.RunExecutionRequest(session=session_id, spec={"definition": "workflow"})
        seen = []

        async def watch() -> None:
            async for event in hub.run(request):
                seen.append(event)  # noqa: PERF401  the test looks at it meanwhile

        watching = asyncio.create_task(watch())
        await until(lambda: len(seen) >= 4)
        assert first.stop() == 0
        second = ServerProcess(tmp_path / "data", database_url, listen=first.address, lease_seconds=1)
        await second.start()
        await watching
        listing = execution_pb2.ListExecutionsRequest(blob="acme/pipeline", session=session_id)
        found = await hub.executions.ListExecutions(listing)
        await hub.sessions.CloseSession(session_pb2.CloseSessionRequest(session=session_id))
    assert len(found.executions) == 1, "the run was started twice"
    assert [event.execution_sequence for event in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].type == "flow.exited"
    assert second.stop() == 0


async def test_blobs_and_the_audit_log_are_watched(server: Served, api: Api) -> None:
    await api.session(flows.steps(1))
    async with connect(server.address, server.admin_key) as hub:
        types = [event.type async for event in hub.watch_blob("acme/pipeline", replay_only=True)]
        seen = [entry async for entry in hub.watch_audit("acme", replay_only=True)]
        rest = [entry async for entry in hub.watch_audit("acme", after_sequence=seen[1].sequence, replay_only=True)]
    assert types == ["blob_created"]
    assert [entry.method.rpartition("/")[2] for entry in seen] == [
        "CreateOrganization",
        "CreateBlob",
        "PutDefinition",
        "CreateSession",
    ]
    assert rest == seen[2:]


async def test_firings_are_watched_those_of_one_schedule_by_numbers_with_gaps(server: Served, api: Api) -> None:
    await schedules.house(api)
    for alias in ("report", "digest"):
        await schedules.create(api, alias)
    for alias in ("report", "digest", "report"):
        await schedules.trigger(api, f"{schedules.DEFAULT}/{alias}")
    async with connect(server.address, server.admin_key) as hub:
        everything = [firing async for firing in hub.watch_firings(schedules.NIGHTLY, replay_only=True)]
        only = [firing async for firing in hub.watch_firings(schedules.NIGHTLY, schedule="report", replay_only=True)]
    assert [firing.sequence for firing in everything] == list(range(1, len(everything) + 1))
    assert only == [firing for firing in everything if firing.schedule_alias == "report"]
    assert len(only) < len(everything)


async def test_a_message_too_large_for_the_client_ends_its_watch(server: Served, api: Api) -> None:
    """It would be as large each time, so nothing is tried again."""
    session_id = await api.session(flows.steps(3))
    _ = [message async for message in api.executions.RunExecution(run_request(session_id))]
    options = [("grpc.max_receive_message_length", 256)]
    async with grpc.aio.insecure_channel(server.address, options) as channel:
        watch = Client(KeyChannel(channel, server.admin_key)).watch_session(session_id, replay_only=True)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            _ = [event async for event in watch]
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def run_request(session_id: str) -> execution_pb2.RunExecutionRequest:
    return execution_pb2.RunExecutionRequest(session=session_id, spec={"definition": "workflow"})


class Exhausted(session_pb2_grpc.SessionServiceServicer):
    """Ends a watch of the session `later` once, saying when to come again, and any other one without."""

    def __init__(self) -> None:
        self.calls = 0

    async def WatchSession(self, request: session_pb2.WatchSessionRequest, context: grpc.aio.ServicerContext):
        self.calls += 1
        if request.session == "later" and self.calls == 2:
            return
        yield session_pb2.WatchSessionResponse(events=[{"session_sequence": request.after_session_sequence + 1}])
        status = status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
        if request.session == "later":
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000)))
        context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")


async def test_a_watch_goes_on_after_exhaustion_only_if_the_server_says_when() -> None:
    service, told = Exhausted(), grpc.aio.server()
    session_pb2_grpc.add_SessionServiceServicer_to_server(service, told)
    port = told.add_insecure_port("127.0.0.1:0")
    await told.start()
    try:
        async with connect(f"127.0.0.1:{port}") as hub:
            assert [event.session_sequence async for event in hub.watch_session("later")] == [1]
            assert service.calls == 2
            with pytest.raises(grpc.aio.AioRpcError):
                _ = [event async for event in hub.watch_session("never")]
            assert service.calls == 3
    finally:
        await told.stop(None)
