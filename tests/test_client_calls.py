"""Calls of both Python clients: their deadlines, which are made again and how often, and the errors they fail with."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import grpc
import pytest
from blobhub.v1 import api_key_pb2, blob_pb2, error_pb2, organization_pb2
from blobhub_client import CallError, Client, Policy, connect, reason, sync
from blobhub_client.errors import DETAILS
from blobhub_client.policy import repeatable
from calling import request_of
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from methods import served_methods
from served import WORKFLOW, Api, Served

pytestmark = pytest.mark.either_database

UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED
SOON = Duration(nanos=1_000_000)
NEW_KEYS = {"ApiKeyService/CreateApiKey", "ApiKeyService/RotateApiKey"}
SERVICES = {method.path[1:].partition("/")[0].rpartition(".")[2] for method in served_methods()}
Use = Callable[[str, str, Any], Awaitable[Any]]


async def ask_with_asyncio(address: str, method: str, request: Any, **settings: Any) -> Any:
    async with connect(address, **settings) as hub:
        noun, _, name = method.partition(".")
        return await getattr(getattr(hub, noun), name)(request)


async def ask_with_threads(address: str, method: str, request: Any, **settings: Any) -> Any:
    def call() -> Any:
        with sync.connect(address, **settings) as hub:
            noun, _, name = method.partition(".")
            return getattr(getattr(hub, noun), name)(request)

    return await asyncio.to_thread(call)


@pytest.fixture(params=[ask_with_asyncio, ask_with_threads], ids=["asyncio", "threads"])
def ask(request: pytest.FixtureRequest) -> Use:
    """Make a call with a client of its own."""
    return request.param


class Scripted(grpc.GenericRpcHandler):
    """Ends calls as it is told to, one after the other, and answers all further ones with an empty message."""

    def __init__(self, *ends: grpc.StatusCode | None, retry: Duration | None = None) -> None:
        self._ends, self._retry = list(ends), retry
        self.requests: list[bytes] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def call(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            self.requests.append(request)
            if not self._ends:
                return b""
            end = self._ends.pop(0)
            if end is None:
                await asyncio.Event().wait()
            status = status_pb2.Status(code=end.value[0])
            if self._retry:
                status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=self._retry))
            context.set_trailing_metadata([(DETAILS, status.SerializeToString())])
            await context.abort(end, "not now")
            raise AssertionError("abort raises")

        return grpc.unary_unary_rpc_method_handler(call)


@asynccontextmanager
async def scripted(*ends: grpc.StatusCode | None, retry: Duration | None = None):
    """A server that does nothing but end calls; its address, and itself."""
    script, server = Scripted(*ends, retry=retry), grpc.aio.server()
    server.add_generic_rpc_handlers([script])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", script
    finally:
        await server.stop(None)


async def test_a_call_that_changes_nothing_is_made_again(ask: Use) -> None:
    async with scripted(UNAVAILABLE, UNAVAILABLE) as (address, script):
        await ask(address, "blobs.GetBlob", blob_pb2.GetBlobRequest(blob="acme/pipeline"))
    assert script.requests == [blob_pb2.GetBlobRequest(blob="acme/pipeline").SerializeToString()] * 3


async def test_a_change_is_made_again_under_one_request_id_and_the_request_stays_as_it_was(ask: Use) -> None:
    request = blob_pb2.CreateBlobRequest(organization="acme", alias="pipeline", type=WORKFLOW)
    async with scripted(UNAVAILABLE) as (address, script):
        await ask(address, "blobs.CreateBlob", request)
    first, second = map(blob_pb2.CreateBlobRequest.FromString, script.requests)
    assert first == second
    assert first.request_id
    assert not request.request_id


async def test_a_new_key_is_asked_for_once_unless_the_caller_chose_the_request_id(ask: Use) -> None:
    request = api_key_pb2.CreateApiKeyRequest(parent="acme")
    async with scripted(UNAVAILABLE) as (address, script):
        with pytest.raises(CallError):
            await ask(address, "api_keys.CreateApiKey", request)
        assert script.requests == [request.SerializeToString()]
    request.request_id = "0a0e2a38-7d5c-4a6b-8f0e-3f6f0c1d2b4a"
    async with scripted(UNAVAILABLE) as (address, script):
        await ask(address, "api_keys.CreateApiKey", request)
        assert script.requests == [request.SerializeToString()] * 2


async def test_exhaustion_is_waited_for_only_if_the_server_says_how_long(ask: Use) -> None:
    async with scripted(EXHAUSTED, retry=SOON) as (address, script):
        await ask(address, "blobs.GetBlob", blob_pb2.GetBlobRequest())
        assert len(script.requests) == 2
    async with scripted(EXHAUSTED) as (address, script):
        with pytest.raises(CallError, match="RESOURCE_EXHAUSTED: not now"):
            await ask(address, "blobs.GetBlob", blob_pb2.GetBlobRequest())
        assert len(script.requests) == 1


async def test_attempts_end_with_their_number_or_when_the_time_is_not_enough_for_another(ask: Use) -> None:
    for policy_, retry in ((Policy(attempts=2), SOON), (Policy(call_seconds=60), Duration(seconds=3600))):
        async with scripted(*[UNAVAILABLE] * 9, retry=retry) as (address, script):
            with pytest.raises(CallError) as raised:
                await ask(address, "blobs.GetBlob", blob_pb2.GetBlobRequest(), policy=policy_)
        assert raised.value.code() is UNAVAILABLE
        assert len(script.requests) == (2 if retry is SOON else 1)


async def test_a_call_ends_after_its_time(ask: Use) -> None:
    async with scripted(None) as (address, _):
        with pytest.raises(CallError) as raised:
            await ask(address, "blobs.GetBlob", blob_pb2.GetBlobRequest(), policy=Policy(call_seconds=0.2))
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_an_error_is_a_value_with_its_reason_its_metadata_and_its_violations(
    ask: Use, server: Served, api: Api
) -> None:
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    made = await api.blobs.CreateBlob(blob_pb2.CreateBlobRequest(organization="acme", alias="pipeline", type=WORKFLOW))

    async def refused(method: str, request: Any) -> CallError:
        with pytest.raises(CallError) as raised:
            await ask(server.address, method, request, key=server.admin_key)
        return raised.value

    stale = await refused("blobs.UpdateBlob", blob_pb2.UpdateBlobRequest(blob="acme/pipeline", etag="stale"))
    assert stale.error_reason == error_pb2.ERROR_REASON_STALE_ETAG
    assert stale.metadata["etag"] == made.blob.etag
    assert isinstance(stale, grpc.aio.AioRpcError)
    wrong = await refused("blobs.ListBlobs", blob_pb2.ListBlobsRequest(organization="acme", page_size=-1))
    assert (wrong.reason, wrong.domain) == ("INVALID_REQUEST", "blobhub")
    assert [each.field for each in wrong.violations] == ["page_size"]
    assert str(wrong).startswith("INVALID_REQUEST: ")
    assert "page_size" in str(wrong)
    missing = await refused("blobs.GetBlob", blob_pb2.GetBlobRequest(blob="acme/nothing"))
    assert reason(missing) == missing.reason == "NOT_FOUND"
    copy = pickle.loads(pickle.dumps(missing))
    assert (str(copy), copy.reason, copy.code()) == (str(missing), "NOT_FOUND", grpc.StatusCode.NOT_FOUND)


def test_a_reason_of_a_type_is_none_of_the_contract() -> None:
    status = status_pb2.Status(code=grpc.StatusCode.NOT_FOUND.value[0], message="no such thing")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="NOT_FOUND", domain="stranger.notes"))
    made = CallError.of_status(status)
    assert (made.reason, made.error_reason) == ("NOT_FOUND", error_pb2.ERROR_REASON_UNSPECIFIED)


def test_of_all_calls_that_answer_once_only_those_for_new_keys_are_not_made_again() -> None:
    once = [method for method in served_methods() if not method.client_streaming and not method.server_streaming]
    safe = {method.path: repeatable(method.path, request_of(method)) for method in once}
    assert {path.rpartition(".")[2] for path, (_, is_safe) in safe.items() if not is_safe} == NEW_KEYS
    for method in once:
        request, is_safe = safe[method.path]
        asks_for_once = method.changes and "lease" not in method.input.fields_by_name
        assert is_safe == (not asks_for_once or bool(request.request_id))


@pytest.mark.parametrize("kind", [Client, sync.Client], ids=["asyncio", "threads"])
def test_a_client_has_every_service(kind: Any) -> None:
    client = kind(Mock())
    stubs = {type(value).__name__ for value in vars(client).values()}
    assert {f"{service}Stub" for service in SERVICES} <= stubs
