"""The Python client for programs without asyncio: pages, runs, watches, and a server that is not there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import flows
import pytest
from blobhub.v1 import blob_pb2, execution_pb2, organization_pb2
from blobhub_client import Unreachable, get_value
from blobhub_client.sync import Client, connect, page
from conformance.network import cutting
from served import WORKFLOW, Api, Served
from waiting import until

pytestmark = pytest.mark.either_database


async def use(address: str, key: str, work: Callable[[Client], Any], **settings: Any) -> Any:
    """What comes of work with a client, beside this loop."""

    def with_client() -> Any:
        with connect(address, key, **settings) as hub:
            return work(hub)

    return await asyncio.to_thread(with_client)


async def test_pages_are_walked(server: Served, api: Api) -> None:
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    for number in range(5):
        await api.blobs.CreateBlob(blob_pb2.CreateBlobRequest(organization="acme", alias=f"blob-{number}", type=WORKFLOW))

    def work(hub: Client) -> list[str]:
        request = blob_pb2.ListBlobsRequest(organization="acme", page_size=2)
        return [blob.alias for blob in page(hub.blobs.ListBlobs, request)]

    assert await use(server.address, server.admin_key, work) == [f"blob-{number}" for number in range(5)]


async def test_a_run_and_watches_see_every_event_once_over_connections_that_are_cut(server: Served, api: Api) -> None:
    loud = 'for number in range(40):\n    emit_output("x" * 8000)\nset_data_output("result", 2**63 - 1)'
    session = await api.session(flows.code(loud))

    def work(hub: Client) -> tuple[list[Any], list[Any], list[Any]]:
        request = execution_pb2.RunExecutionRequest(session=session, spec={"definition": "workflow"})
        run = list(hub.run(request))
        execution = list(hub.watch_execution(run[0].execution_id))
        return run, execution, list(hub.watch_session(session, replay_only=True))

    async with cutting(server.address, 3, 1) as (cut, cuts):
        run, execution, session_events = await use(cut, server.admin_key, work)
    assert cuts.cuts == 3
    assert [event.execution_sequence for event in run] == list(range(1, len(run) + 1))
    assert get_value(run[-1].flow_exited, "result") == 2**63 - 1
    assert [event.id for event in run] == [event.id for event in execution] == [event.id for event in session_events]
    listing = execution_pb2.ListExecutionsRequest(blob="acme/pipeline", session=session)
    assert len((await api.executions.ListExecutions(listing)).executions) == 1


async def test_leaving_the_loop_ends_the_call(server: Served, api: Api) -> None:
    session = await api.session(flows.steps(1))
    await api.executions.StartExecution(
        execution_pb2.StartExecutionRequest(session=session, spec={"definition": "workflow"})
    )

    def work(hub: Client) -> Any:
        watch = hub.watch_session(session)
        first = next(watch)
        watch.close()
        return first, hub.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/pipeline"))

    first, _ = await use(server.address, server.admin_key, work)
    assert first.session_sequence == 1


async def test_calls_may_be_made_from_several_threads_and_a_call_be_had_as_a_future(server: Served, api: Api) -> None:
    await api.session(flows.steps(1))
    request = blob_pb2.GetBlobRequest(blob="acme/pipeline")
    with connect(server.address, server.admin_key) as hub:
        answers = await asyncio.gather(*(asyncio.to_thread(hub.blobs.GetBlob, request) for _ in range(8)))
        future = hub.blobs.GetBlob.future(request)
        await until(future.done)
        answer, call = await asyncio.to_thread(hub.blobs.GetBlob.with_call, request)
    assert {each.blob.alias for each in (*answers, future.result(), answer)} == {"pipeline"}
    assert call.code().name == "OK"


async def test_where_nothing_listens_the_client_gives_up_and_names_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable, match=address):
            await use(address, "key", lambda hub: list(hub.watch_session("s")), connect_seconds=0.5)
