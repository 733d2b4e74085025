"""The second port of gRPC: inference with messages that are larger than anywhere else, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc
import httpx
import models
import numpy as np
import pytest
from blobhub.v1 import blob_pb2, inference_pb2, inference_pb2_grpc
from blobhub_server.blobtypes.conformance import expect_refusal, reason_of
from blobhub_server.config import Settings
from blobhub_server.onnx.oip import open_inference_pb2 as pb
from blobhub_server.onnx.oip.access import SERVICE
from blobhub_server.rpc.port import KNOWN_BYTES, MIB, STREAM_BYTES, UNKNOWN_BYTES, UNREAD_BYTES, PortBounds
from blobhub_server.rpc.room import Room, Sender
from grpc_health.v1 import health_pb2, health_pb2_grpc
from inferring import FLOAT, INT64, model
from onnx import TensorProto, helper
from pydantic import ValidationError
from served import Api, Served, connected, served
from waiting import until

pytestmark = pytest.mark.either_database

Tensor = inference_pb2.InferenceTensor
MODEL = "acme/scorer@draft"


def echo() -> bytes:
    """Numbers as they are, the smallest number for each of them, and as many zeros as another input says."""
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("ConstantOfShape", ["n"], ["small"], value=helper.make_tensor("v", TensorProto.INT8, [1], [-1])),
    ]
    outputs = [("y", FLOAT, ["rows"]), ("small", TensorProto.INT8, ["m"])]
    return bytes(model(nodes, [("x", FLOAT, ["rows"]), ("n", INT64, [1])], outputs).SerializeToString())


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    """A server with both ports, where there is the model."""
    settings = {"inference_listen": "127.0.0.1:0", "inference_message_mib": 12, "max_streams_per_caller": 1}
    async with served(tmp_path / "data", **settings) as running, connected(running.address, running.admin_key) as api:
        await models.blob(api)
        await models.stored(api, echo())
        yield running


@pytest.fixture
async def large(server: Served) -> AsyncIterator[Api]:
    """A client of the port for large messages."""
    async with connected(server.inference_address, server.admin_key) as connection:
        yield connection


def numbers(count: int) -> Any:
    return np.arange(count, dtype=np.float32)


def inputs(count: int, zeros: int = 0) -> list[Tensor]:
    x = numbers(count)
    return [
        Tensor(name="x", datatype="FP32", shape=x.shape, raw=x.tobytes()),
        Tensor(name="n", datatype="INT64", shape=[1], integers=[zeros]),
    ]


async def code(call: Awaitable[Any]) -> str:
    """What a call ends with: gRPC's own refusals have no reason."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def infer(api: Api, count: int, outputs: list[str], *, zeros: int = 0, raw: bool = True) -> Tensor:
    request = inference_pb2.InferRequest(revision=MODEL, inputs=inputs(count, zeros), outputs=outputs, raw_outputs=raw)
    (answer,) = (await inference_pb2_grpc.InferenceServiceStub(api.channel).Infer(request)).outputs
    return answer


async def ask(api: Api, count: int) -> pb.ModelInferResponse:
    """The same by the Open Inference Protocol."""
    x = numbers(count)
    request = pb.ModelInferRequest(model_name=MODEL, outputs=[{"name": "y"}])
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    request.inputs.add(name="n", datatype="INT64", shape=[1])
    request.raw_input_contents.extend([x.tobytes(), bytes(8)])
    call = api.channel.unary_unary(
        f"/{SERVICE}/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )
    return await call(request)


async def test_tensors_of_many_megabytes_go_in_and_out_by_both_protocols(api: Api, large: Api) -> None:
    count = 10 * MIB // 4
    expected = numbers(count).tobytes()
    assert (await infer(large, count, ["y"])).raw == expected
    assert list((await ask(large, count)).raw_output_contents) == [expected]
    requests = iter(
        [inference_pb2.StreamInferRequest(revision=MODEL, inputs=inputs(count), outputs=["y"], raw_outputs=True)]
    )
    async for answer in inference_pb2_grpc.InferenceServiceStub(large.channel).StreamInfer(requests):
        assert answer.outputs[0].raw == expected
    for call in (infer(api, count, ["y"]), ask(api, count), infer(large, 3 * MIB, ["y"])):
        assert await code(call) == "RESOURCE_EXHAUSTED"
    assert (await infer(api, 4, ["y"])).raw == numbers(4).tobytes()


async def test_an_answer_has_the_size_of_its_port(api: Api, large: Api) -> None:
    assert len((await infer(large, 0, ["small"], zeros=10 * MIB)).raw) == 10 * MIB
    refused = await expect_refusal(
        infer(api, 0, ["small"], zeros=10 * MIB), grpc.StatusCode.RESOURCE_EXHAUSTED, "INFERENCE_EXHAUSTED"
    )
    assert "at most 4128768 can be sent" in refused.details()


async def test_lists_of_numbers_are_no_larger_than_elsewhere(api: Api, large: Api) -> None:
    request = inference_pb2.InferRequest(revision=MODEL, inputs=inputs(0))
    request.inputs[0].floats.extend([0.5] * (MIB + 1))
    stub = inference_pb2_grpc.InferenceServiceStub(large.channel)
    refused = await expect_refusal(stub.Infer(request), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert "4194304 bytes in lists of numbers" in refused.details()
    # A small number that is negative takes ten bytes in a list.
    for caller, zeros in ((large, 5 * MIB), (large, 2 * MIB), (api, MIB // 2)):
        refused = await expect_refusal(
            infer(caller, 0, ["small"], zeros=zeros, raw=False), grpc.StatusCode.RESOURCE_EXHAUSTED, "INFERENCE_EXHAUSTED"
        )
        assert "raw bytes" in refused.details()
    assert len((await infer(api, 0, ["small"], zeros=MIB // 4, raw=False)).integers) == MIB // 4


async def test_access_is_that_of_the_other_port_and_so_are_counts(server: Served, api: Api, large: Api) -> None:
    async with connected(server.inference_address, None) as anonymous:
        assert await code(infer(anonymous, 1, ["y"])) == "UNAUTHENTICATED"
    async with connected(server.inference_address, "bhk_malformed") as stranger:
        assert await code(infer(stranger, 1, ["y"])) == "UNAUTHENTICATED"
    assert await code(large.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/scorer"))) == "UNIMPLEMENTED"

    first = inference_pb2.StreamInferRequest(revision=MODEL, inputs=inputs(1), outputs=["y"])
    stream = inference_pb2_grpc.InferenceServiceStub(large.channel).StreamInfer()
    await stream.write(first)
    await stream.read()
    one_more = inference_pb2_grpc.InferenceServiceStub(api.channel).StreamInfer(iter([first]))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await one_more.read()
    assert reason_of(raised.value) == "LIMIT_EXCEEDED", "streams of one caller are counted over both ports"
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF

    async def counted() -> float:
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://{server.http_address}/metrics")).text
        name = 'grpc_server_started_total{grpc_method="Infer",grpc_service="blobhub.v1.InferenceService"'
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    before = await counted()
    await infer(api, 1, ["y"])
    await infer(large, 1, ["y"])
    assert await counted() == before + 2


async def test_health_is_there_and_ends_with_the_server(tmp_path: Path) -> None:
    name = "blobhub.v1.InferenceService"
    async with served(tmp_path / "data", inference_listen="127.0.0.1:0") as running:
        channel = grpc.aio.insecure_channel(running.inference_address)
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", name, SERVICE):
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == 1
        assert await code(stub.Check(health_pb2.HealthCheckRequest(service="blobhub.v1.BlobService"))) == "NOT_FOUND"
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=name))
        assert (await watch.read()).status == 1
        following = asyncio.create_task(watch.read())
    assert (await following).status == 2
    await channel.close()


@pytest.mark.parametrize("mib", [4, 12, 32, 64])
async def test_messages_that_are_being_received_fit_into_a_budget(mib: int) -> None:
    bounds = PortBounds.for_large_messages(mib * MIB)
    size = bounds.room
    for count, budget in ((size.known, KNOWN_BYTES), (size.unknown, UNKNOWN_BYTES), (size.streams, STREAM_BYTES)):
        assert 0 < count * mib * MIB <= budget
    assert mib * MIB <= (bounds.max_unread_bytes_per_sender or 0) <= UNREAD_BYTES
    room, known = Room(size), Sender(name="one", known=True)
    assert not room.enter_at_once(known)
    inside, release = 0, asyncio.Event()

    async def stay(sender: Sender) -> None:
        nonlocal inside
        async with room.place(sender):
            inside += 1
            await release.wait()

    tasks = [asyncio.create_task(stay(Sender(name=str(number), known=True))) for number in range(size.known + 1)]
    await until(lambda: inside == size.known)
    release.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    "settings",
    [
        {"inference_listen": "nowhere"},
        {"inference_listen": "0.0.0.0:7445"},
        {"inference_message_mib": 65},
        {"inference_message_mib": 3},
    ],
)
def test_settings_of_the_port_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**settings)
