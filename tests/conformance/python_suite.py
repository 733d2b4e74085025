"""What README.md asks of the client for Python."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from blobhub.v1.blob_pb2 import CreateBlobRequest, GetBlobRequest, ListBlobsRequest, UpdateBlobRequest
from blobhub.v1.error_pb2 import ErrorReason
from blobhub.v1.event_pb2 import Event
from blobhub.v1.execution_pb2 import (
    ExecutionInput,
    ExecutionSpec,
    ListExecutionsRequest,
    RunExecutionRequest,
    StartExecutionRequest,
)
from blobhub.v1.model_pb2 import DownloadModelRequest, ProcessedModel, UploadModelRequest
from blobhub.v1.organization_pb2 import CreateOrganizationRequest
from blobhub.v1.session_pb2 import CloseSessionRequest, CreateSessionRequest
from blobhub_client import CallError, Client, connect, get_value, page, set_value, sync

WORKFLOW, ONNX = "blobhub.compute.workflow", "blobhub.model.onnx"


def setting(name: str) -> str:
    return os.environ[f"CONFORMANCE_{name}"]


@asynccontextmanager
async def hub(address: str = "ADDRESS", key: str | None = "KEY") -> AsyncIterator[Client]:
    async with connect(setting(address), setting(key) if key else None) as made:
        yield made


def opening(**fields: Any) -> CreateSessionRequest:
    """Asks for a session on the shared workflow."""
    return CreateSessionRequest(revision=f"{setting('SHARED')}/{setting('BLOB')}@draft", **fields)


async def pages() -> None:
    async with hub() as client:
        request = ListBlobsRequest(organization=setting("SHARED"), page_size=37)
        ids = [blob.id async for blob in page(client.blobs.ListBlobs, request)]
    assert str(len(ids)) == str(len(set(ids))) == setting("ITEMS"), len(ids)


async def refused(call: Awaitable[Any], code: grpc.StatusCode, why: str, said: str = "") -> CallError:
    (error,) = await asyncio.gather(call, return_exceptions=True)
    assert isinstance(error, CallError), (why, error)
    assert (error.code(), error.error_reason) == (code, ErrorReason.Value(f"ERROR_REASON_{why}")), error
    assert said in str(error), error
    return error


async def reasons() -> None:
    organization, status = f"{setting('ORGANIZATION')}-errors", grpc.StatusCode
    async with hub() as client, hub(key=None) as nobody:
        await client.organizations.CreateOrganization(CreateOrganizationRequest(alias=organization))
        create = CreateBlobRequest(organization=organization, alias="pipeline", type=WORKFLOW, request_id=str(uuid.uuid4()))
        blob = (await client.blobs.CreateBlob(create)).blob
        missing = GetBlobRequest(blob=f"{organization}/nothing")
        await refused(client.blobs.GetBlob(missing), status.NOT_FOUND, "NOT_FOUND", missing.blob)
        wrong = ListBlobsRequest(organization=organization, page_size=-1)
        await refused(client.blobs.ListBlobs(wrong), status.INVALID_ARGUMENT, "INVALID_REQUEST", "page_size")
        stale = UpdateBlobRequest(blob=blob.id, etag="stale")
        told = await refused(client.blobs.UpdateBlob(stale), status.ABORTED, "STALE_ETAG")
        assert told.metadata["etag"] == blob.etag
        create.alias = "another"
        await refused(client.blobs.CreateBlob(create), status.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        unseen = GetBlobRequest(blob=blob.id)
        await refused(nobody.blobs.GetBlob(unseen), status.UNAUTHENTICATED, "UNAUTHENTICATED", "no key came with this call")


def spec_of_echo() -> ExecutionSpec:
    given = ExecutionInput(alias="given")
    set_value(given, 2**64 - 1)
    return ExecutionSpec(definition="echo", input_data=[given])


async def lost_calls() -> None:
    organization = f"{setting('ORGANIZATION')}-losing"
    async with hub("LOSING") as client:
        await client.organizations.CreateOrganization(CreateOrganizationRequest(alias=organization))
        for number in range(5):
            create = CreateBlobRequest(organization=organization, alias=f"blob-{number}", type=WORKFLOW)
            await client.blobs.CreateBlob(create)
        session = (await client.sessions.CreateSession(opening())).session.id
        events = [event async for event in client.run(RunExecutionRequest(session=session, spec=spec_of_echo()))]
    await happened_once(organization, session, events)


async def lost_calls_of_threads() -> None:
    organization = f"{setting('ORGANIZATION')}-threads"

    def make_calls() -> tuple[str, list[Event]]:
        with sync.connect(setting("LOSING"), setting("KEY")) as client:
            client.organizations.CreateOrganization(CreateOrganizationRequest(alias=organization))
            for number in range(5):
                create = CreateBlobRequest(organization=organization, alias=f"blob-{number}", type=WORKFLOW)
                client.blobs.CreateBlob(create)
            session = client.sessions.CreateSession(opening()).session.id
            return session, list(client.run(RunExecutionRequest(session=session, spec=spec_of_echo())))

    await happened_once(organization, *await asyncio.to_thread(make_calls))


async def happened_once(organization: str, session: str, events: list[Event]) -> None:
    assert get_value(events[-1].flow_exited, "result") == 2**64 - 1, events[-1]
    async with hub() as direct:
        made = Counter(
            [entry.method.rpartition("/")[2] async for entry in direct.watch_audit(organization, replay_only=True)]
        )
        assert made == {"CreateOrganization": 1, "CreateBlob": 5}, made
        listing = ListExecutionsRequest(blob=f"{setting('SHARED')}/{setting('BLOB')}", session=session)
        assert len((await direct.executions.ListExecutions(listing)).executions) == 1


async def cut_watch() -> None:
    async with hub("CUTTING") as client, hub() as direct:
        session, seen, ended = (await direct.sessions.CreateSession(opening())).session.id, [], 0

        async def start() -> None:
            for _ in range(3):
                request = StartExecutionRequest(session=session, spec=ExecutionSpec(definition="loud"))
                await direct.executions.StartExecution(request)

        await start()
        async for event in client.watch_session(session):
            seen.append(event.id)
            ended += event.type == "flow.exited"
            if event.type == "flow.exited" and ended == 2:
                await start()
            elif event.type == "flow.exited" and ended == 6:
                await direct.sessions.CloseSession(CloseSessionRequest(session=session))
        assert seen == [event.id async for event in direct.watch_session(session, replay_only=True)]


async def new_model(client: Client, name: str) -> str:
    """The draft of a new blob for a model."""
    organization = f"{setting('ORGANIZATION')}-{name}"
    await client.organizations.CreateOrganization(CreateOrganizationRequest(alias=organization))
    await client.blobs.CreateBlob(CreateBlobRequest(organization=organization, alias="scorer", type=ONNX))
    return f"{organization}/scorer@draft"


async def large_model() -> None:
    path, back, sent, came = Path(setting("MODEL")), io.BytesIO(), [0], [0]
    async with hub() as client:
        draft = await new_model(client, "model")
        first, asked = UploadModelRequest(revision=draft), DownloadModelRequest(revision=draft)
        with path.open("rb") as content:
            operation = await client.upload_model(first, content, progress=lambda moved, _: sent.append(moved))
        stored = await client.outcome(operation.id, ProcessedModel)
        await client.download_model(asked, back, progress=lambda moved, _: came.append(moved))
        assert stored.model.size == sent[-1] == came[-1] == path.stat().st_size
        assert back.getvalue() == path.read_bytes()
        refused_model = await client.upload_model(first, io.BytesIO(b"no model"))
        (error,) = await asyncio.gather(client.outcome(refused_model.id, ProcessedModel), return_exceptions=True)
        assert isinstance(error, CallError), error
        assert (error.domain, bool(error.reason)) == (ONNX, True), error


async def large_model_of_threads() -> None:
    path = Path(setting("MODEL"))
    async with hub() as client:
        draft = await new_model(client, "model-threads")

    def move() -> bytes:
        back = io.BytesIO()
        with sync.connect(setting("ADDRESS"), setting("KEY")) as client, path.open("rb") as content:
            client.outcome(client.upload_model(UploadModelRequest(revision=draft), content).id, ProcessedModel)
            client.download_model(DownloadModelRequest(revision=draft), back)
        return back.getvalue()

    assert await asyncio.to_thread(move) == path.read_bytes()


TESTS = (pages, reasons, lost_calls, lost_calls_of_threads, cut_watch, large_model, large_model_of_threads)


async def main() -> None:
    for test in TESTS:
        print(test.__name__, flush=True)
        await test()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
