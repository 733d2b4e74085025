"""What README.md asks of the client for Python."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from blobhub.v1.blob_pb2 import CreateBlobRequest, GetBlobRequest, ListBlobsRequest, UpdateBlobRequest
from blobhub.v1.execution_pb2 import (
    ExecutionInput,
    ExecutionSpec,
    ListExecutionsRequest,
    RunExecutionRequest,
    StartExecutionRequest,
)
from blobhub.v1.organization_pb2 import CreateOrganizationRequest
from blobhub.v1.session_pb2 import CloseSessionRequest, CreateSessionRequest
from blobhub_client import Client, connect, get_value, page, reason, set_value

WORKFLOW = "blobhub.compute.workflow"
ATTEMPTS = 5


def setting(name: str) -> str:
    return os.environ[f"CONFORMANCE_{name}"]


@asynccontextmanager
async def hub(address: str = "ADDRESS", key: str | None = "KEY") -> AsyncIterator[Client]:
    async with connect(setting(address), setting(key) if key else None) as made:
        yield made


async def opened(client: Client, **fields: Any) -> str:
    """A session on the shared workflow."""
    request = CreateSessionRequest(revision=f"{setting('SHARED')}/{setting('BLOB')}@draft", **fields)
    return (await again(client.sessions.CreateSession, request)).session.id


async def failure(call: Awaitable[Any]) -> grpc.aio.AioRpcError | None:
    """What a call fails with."""
    (answer,) = await asyncio.gather(call, return_exceptions=True)
    return answer if isinstance(answer, grpc.aio.AioRpcError) else None


async def again(method: Callable[[Any], Awaitable[Any]], request: Any) -> Any:
    """A change under a request id, made until it is answered."""
    request.request_id = str(uuid.uuid4())
    for _ in range(ATTEMPTS):
        (answer,) = await asyncio.gather(method(request), return_exceptions=True)
        if not isinstance(answer, grpc.aio.AioRpcError) or answer.code() is not grpc.StatusCode.UNAVAILABLE:
            return answer
    raise AssertionError(f"{method} was not answered")


async def pages() -> None:
    async with hub() as client:
        request = ListBlobsRequest(organization=setting("SHARED"), page_size=37)
        ids = [blob.id async for blob in page(client.blobs.ListBlobs, request)]
    assert str(len(ids)) == str(len(set(ids))) == setting("ITEMS"), len(ids)


async def refused(call: Awaitable[Any], code: grpc.StatusCode, why: str, said: str = "") -> None:
    error = await failure(call)
    assert error is not None, why
    assert (error.code(), reason(error)) == (code, why), error
    assert said in (error.details() or ""), error


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
        await refused(client.blobs.UpdateBlob(stale), status.ABORTED, "STALE_ETAG")
        create.alias = "another"
        await refused(client.blobs.CreateBlob(create), status.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        unseen = GetBlobRequest(blob=blob.id)
        await refused(nobody.blobs.GetBlob(unseen), status.UNAUTHENTICATED, "UNAUTHENTICATED", "no key came with this call")


async def lost_calls() -> None:
    organization, given = f"{setting('ORGANIZATION')}-losing", ExecutionInput(alias="given")
    set_value(given, 2**64 - 1)
    async with hub("LOSING") as client, hub() as direct:
        await again(client.organizations.CreateOrganization, CreateOrganizationRequest(alias=organization))
        for number in range(5):
            create = CreateBlobRequest(organization=organization, alias=f"blob-{number}", type=WORKFLOW)
            await again(client.blobs.CreateBlob, create)
        session = await opened(client)
        spec = ExecutionSpec(definition="echo", input_data=[given])
        events = [event async for event in client.run(RunExecutionRequest(session=session, spec=spec))]
        assert get_value(events[-1].flow_exited, "result") == 2**64 - 1, events[-1]
        made = Counter(
            [entry.method.rpartition("/")[2] async for entry in direct.watch_audit(organization, replay_only=True)]
        )
        assert made == {"CreateOrganization": 1, "CreateBlob": 5}, made
        listing = ListExecutionsRequest(blob=f"{setting('SHARED')}/{setting('BLOB')}", session=session)
        assert len((await direct.executions.ListExecutions(listing)).executions) == 1


async def cut_watch() -> None:
    async with hub("CUTTING") as client, hub() as direct:
        session, seen, ended = await opened(direct), [], 0

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


async def main() -> None:
    for test in (pages, reasons, lost_calls, cut_watch):
        print(test.__name__, flush=True)
        await test()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
