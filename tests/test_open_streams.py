"""Nobody has so many streams open that others go without."""

from __future__ import annotations

from pathlib import Path

import acme
import flows
import grpc
from blobhub.v1 import blob_pb2
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from calling import ask
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from served import Api, connected, served
from waiting import until, within_deadline

LIMIT = 4


async def opened(api: Api) -> grpc.aio.UnaryStreamCall:
    """An open watch of a blob that has sent its first message. Raises AioRpcError when it is refused."""
    call = api.blobs.WatchBlob(blob_pb2.WatchBlobRequest(blob="acme/pipeline"))
    await within_deadline(call.read())
    return call


async def refused(api: Api) -> tuple[str, str]:
    """The limit that one more stream exceeds, and whose it is."""
    error = await expect_refusal(opened(api), grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert unpack(error, info)
    assert unpack(error, retry)
    assert info.metadata["value"] == str(LIMIT)
    return info.metadata["limit"], info.metadata["resource"]


async def test_a_caller_with_many_streams_open_is_refused_more_and_others_are_served(
    tmp_path: Path, database_url: str
) -> None:
    limits = {"max_streams_per_caller": LIMIT, "max_streams_per_address": LIMIT}
    async with (
        served(tmp_path / "data", database_url, **limits) as server,
        connected(server.address, server.admin_key) as api,
        connected(server.address, None) as anonymous,
    ):
        await api.session(flows.steps(1))
        mask = {"paths": ["visibility"]}
        await acme.update_blob(api, visibility=acme.PUBLIC, update_mask=mask, etag="*")
        async with connected(server.address, (await acme.key(api, "acme")).key) as other:
            calls = [await opened(api) for _ in range(LIMIT)]
            caller = (await ask(api, "GetCaller")).caller
            assert await refused(api) == ("caller.streams", caller.user_id)
            assert (await opened(other)).cancel()
            calls += [await opened(anonymous) for _ in range(LIMIT)]
            assert await refused(anonymous) == ("address.streams", "127.0.0.1")
            calls.append(await opened(other))
            health = health_pb2_grpc.HealthStub(anonymous.channel).Watch(health_pb2.HealthCheckRequest())
            assert await within_deadline(_code(health)) is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert calls[0].cancel()
            await until(lambda: _is_let_in(api))
            for call in calls:
                call.cancel()


async def _is_let_in(api: Api) -> bool:
    try:
        return (await opened(api)).cancel()
    except grpc.aio.AioRpcError:
        return False


async def _code(call: grpc.aio.UnaryStreamCall) -> grpc.StatusCode:
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
