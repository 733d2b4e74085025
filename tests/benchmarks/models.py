"""Models: how fast they are sent, fetched and asked, beside bare gRPC in the same process, and beside MLServer."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import acme
import grpc
import numpy as np
from benchmarks import peer
from benchmarks.measuring import Call, alternating
from benchmarks.peer import ROW
from benchmarks.rows import row, spread
from benchmarks.serving import Serving, serving
from blobhub.v1 import inference_pb2, model_pb2, model_upload_pb2
from blobhub.v1.inference_pb2_grpc import InferenceServiceStub
from calling import ask
from model_uploads import model_of, scorer
from models import DRAFT, ended, processed, sign, stub, upload
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx_models import OPSETS
from served import Api

CHUNK_BYTES, PART_BYTES = 1 << 20, 16 << 20
TURNS = 5

Transfer = Callable[[], Awaitable[float]]
"""It says how many seconds it took."""


def classifier() -> ModelProto:
    """A small model: the probabilities of three classes by four numbers, for each row."""
    generator = np.random.default_rng(0)
    weights = numpy_helper.from_array(generator.random((4, 3), np.float32), "w")
    bias = numpy_helper.from_array(generator.random(3, np.float32), "b")
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["s"]), helper.make_node("Softmax", ["s"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in (("x", 4), ("y", 3)))
    graph = helper.make_graph(nodes, "classifier", [x], [y], initializer=[weights, bias])
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=10)


async def main(folder: Path, size: int) -> None:
    """Tell all of it; the model that is sent and fetched has about so many bytes."""
    async with serving(folder / "transfers") as server:
        await transfers(server, model_of(size))
    model = classifier().SerializeToString()
    async with serving(folder / "batched") as server:
        await _ready(server.api, model)
        await inference(server, "Infer, a small model", _infer(server.api))
        await inference(server, "ModelInfer of the Open Inference Protocol", peer.infer(server.api.channel, "acme/scorer"))
        async with peer.serving(folder / "mlserver", model) as channel:
            await inference(server, "ModelInfer of MLServer", peer.infer(channel, peer.NAME))
    async with serving(folder / "alone", inference_batching="off") as server:
        await _ready(server.api, model)
        await inference(server, "Infer, without micro-batching", _infer(server.api))


async def transfers(server: Serving, model: bytes) -> None:
    """Send and fetch a model in every way, in turns with the bare stream."""
    api, bare = server.api, server.bare
    await scorer(api)
    await processed(api, await upload(api, model))
    size = len(model)
    await _told("UploadModel", size, lambda: _upload(api, model), lambda: _bare_upload(bare, model))
    await _told("DownloadModel", size, lambda: _download(api), lambda: _bare_download(bare))
    await _told("PUT of parts by HTTP", size, lambda: _put_parts(api, model), lambda: _bare_upload(bare, model))
    await _told("GET of an object by HTTP", size, lambda: _get(api), lambda: _bare_download(bare))


async def _told(name: str, size: int, ours: Transfer, bare: Transfer) -> None:
    """Megabytes a second, by the median of what the transfers say that they took."""
    took: list[list[float]] = [[], []]
    for _ in range(TURNS):
        for place, transfer in enumerate((ours, bare)):
            took[place].append(await transfer())
    mine, base = (size / statistics.median(each) / 1e6 for each in took)
    row(f"{name}, {size >> 20} MiB", f"{mine:,.0f} MB/s", f"{mine / base:.0%} of a bare stream ({base:,.0f} MB/s)")


def _chunks(data: bytes) -> Iterator[bytes]:
    return (data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES))


async def _upload(api: Api, model: bytes) -> float:
    """Until it is stored. The operation that follows is cancelled, so that it takes nothing of the next transfer.

    The messages are encoded before, as the bare stream's are bytes already: what a client's encoder costs is its own.
    """
    head = model_pb2.UploadModelRequest(revision=DRAFT, size=len(model))
    messages = [head, *(model_pb2.UploadModelRequest(chunk=chunk) for chunk in _chunks(model))]
    encoded = [message.SerializeToString() for message in messages]

    async def requests() -> AsyncIterator[bytes]:
        for message in encoded:
            yield message

    method = "/blobhub.v1.ModelService/UploadModel"
    call = api.channel.stream_unary(method, response_deserializer=model_pb2.UploadModelResponse.FromString)
    start = time.perf_counter()
    operation = (await call(requests())).operation
    took = time.perf_counter() - start
    await ask(api, "CancelOperation", operation=operation.id)
    await ended(api, operation)
    return took


async def _bare_upload(bare: grpc.aio.Channel, model: bytes) -> float:
    async def requests() -> AsyncIterator[bytes]:
        for chunk in _chunks(model):
            yield chunk

    start = time.perf_counter()
    await bare.stream_unary("/bare/Upload")(requests())
    return time.perf_counter() - start


async def _download(api: Api) -> float:
    start, received = time.perf_counter(), 0
    async for message in stub(api).DownloadModel(model_pb2.DownloadModelRequest(revision=DRAFT)):
        received += len(message.chunk)
    assert received > CHUNK_BYTES
    return time.perf_counter() - start


async def _bare_download(bare: grpc.aio.Channel) -> float:
    start, received = time.perf_counter(), 0
    async for chunk in bare.unary_stream("/bare/Download")(b""):
        received += len(chunk)
    assert received > CHUNK_BYTES
    return time.perf_counter() - start


async def _put_parts(api: Api, model: bytes) -> float:
    """One part after the other, over one connection."""
    request = model_upload_pb2.CreateModelUploadRequest(
        revision=DRAFT, form=model_pb2.MODEL_FORM_ONNX, size=len(model), part_size=PART_BYTES
    )
    made = (await api.model_uploads.CreateModelUpload(request)).model_upload
    numbers = range(1, made.part_count + 1)
    signed = await ask(api, "SignModelUploadParts", model_upload=made.id, numbers=numbers)
    took = await asyncio.to_thread(_put_all, [(part.url, dict(part.headers)) for part in signed.parts], model)
    await ask(api, "CancelModelUpload", model_upload=made.id)
    return took


def _put_all(signed: list[tuple[str, dict[str, str]]], model: bytes) -> float:
    connection, start = HTTPConnection(urlsplit(signed[0][0]).netloc), time.perf_counter()
    for number, (url, headers) in enumerate(signed):
        body = memoryview(model)[number * PART_BYTES :][:PART_BYTES]
        connection.request("PUT", _target(url), body=body, headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    took = time.perf_counter() - start
    connection.close()
    return took


async def _get(api: Api) -> float:
    signed = await sign(api)
    return await asyncio.to_thread(_get_all, signed.url)


def _get_all(url: str) -> float:
    connection, start = HTTPConnection(urlsplit(url).netloc), time.perf_counter()
    connection.request("GET", _target(url))
    answer, buffer, received = connection.getresponse(), bytearray(CHUNK_BYTES), 0
    while size := answer.readinto(buffer):
        received += size
    assert received > CHUNK_BYTES
    took = time.perf_counter() - start
    connection.close()
    return took


def _target(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


async def _ready(api: Api, model: bytes) -> None:
    """A blob with the model in a commit, as a model that is asked has it."""
    await scorer(api)
    await processed(api, await upload(api, model))
    await acme.commit(api, DRAFT)


def _infer(api: Api) -> Call:
    request = inference_pb2.InferRequest(revision="acme/scorer", raw_outputs=True)
    request.inputs.add(name="x", datatype="FP32", shape=ROW.shape, raw=ROW.tobytes())
    infer = InferenceServiceStub(api.channel).Infer
    return lambda: infer(request)


async def inference(server: Serving, name: str, ask_model: Call) -> None:
    """Requests a second, of one row each, in turns with empty calls."""
    await ask_model()
    empty = server.bare.unary_unary("/bare/Empty")
    for in_flight in (1, 64):
        ours, theirs, took = await alternating(ask_model, lambda: empty(b""), in_flight)
        row(f"{name}, {in_flight} in flight", f"{ours:,.0f}/s", f"{ours / theirs:.0%} of an empty call ({theirs:,.0f}/s)")
        row("", spread(took))
