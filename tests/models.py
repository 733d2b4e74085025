"""Models in blobs, a line each: sent in every way, waited for, read back."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import acme
import grpc
from blobhub.v1 import model_pb2, model_pb2_grpc, operation_pb2
from blobhub.v1.operation_pb2 import OperationState
from calling import ask
from google.rpc import error_details_pb2
from onnx_models import relu
from served import Api

ONNX = "blobhub.model.onnx"
DRAFT = "acme/scorer@draft"
SMALL = relu().SerializeToString()
CHUNK_BYTES = 64 << 10
Start = model_pb2.UploadModelRequest


def stub(api: Api) -> model_pb2_grpc.ModelServiceStub:
    return model_pb2_grpc.ModelServiceStub(api.channel)


async def blob(api: Api, reference: str = "acme/scorer") -> None:
    """A new blob for a model, in an organization of its own."""
    await acme.organization(api, reference.partition("/")[0])
    await acme.blob(api, reference, ONNX)


def archive(model: bytes, name: str = "model.onnx") -> bytes:
    """A model.tar.gz."""
    with io.BytesIO() as packed:
        with tarfile.open(fileobj=packed, mode="w") as tar:
            member = tarfile.TarInfo(name)
            member.size = len(model)
            tar.addfile(member, io.BytesIO(model))
        return gzip.compress(packed.getvalue(), 1, mtime=0)


async def put(api: Api, content: bytes, revision: str = DRAFT, **fields: Any) -> operation_pb2.Operation:
    """Send a model in one message; the operation that processes it."""
    request = model_pb2.PutModelRequest(revision=revision, content=content, **fields)
    return (await stub(api).PutModel(request)).operation


async def upload(api: Api, content: bytes, revision: str = DRAFT, **fields: Any) -> operation_pb2.Operation:
    """Send a model as a stream; the operation that processes it."""
    return await send(api, messages(content, revision, **fields))


async def put_archive(api: Api, content: bytes, revision: str = DRAFT, **fields: Any) -> operation_pb2.Operation:
    return await put(api, archive(content), revision, form="MODEL_FORM_TAR_GZ", **fields)


async def upload_archive(api: Api, content: bytes, revision: str = DRAFT, **fields: Any) -> operation_pb2.Operation:
    return await upload(api, archive(content), revision, form="MODEL_FORM_TAR_GZ", **fields)


def messages(content: bytes, revision: str = DRAFT, **fields: Any) -> Iterator[Start]:
    """The messages of an upload."""
    yield Start(revision=revision, **fields)
    for start in range(0, len(content), CHUNK_BYTES):
        yield Start(chunk=content[start : start + CHUNK_BYTES])


async def send(api: Api, requests: Iterator[Start] | AsyncIterator[Start]) -> operation_pb2.Operation:
    return (await stub(api).UploadModel(requests)).operation


async def ended(api: Api, operation: operation_pb2.Operation) -> operation_pb2.Operation:
    """The operation once it has ended."""
    return (await ask(api, "WatchOperation", operation=operation.id)).operations[-1]


async def has_ended(api: Api, operation_id: str) -> bool:
    """Whether an operation has ended, as far as the network lets one know."""
    with suppress(grpc.aio.AioRpcError):
        return (await ask(api, "GetOperation", operation=operation_id)).operation.HasField("end_time")
    return False


async def processed(api: Api, operation: operation_pb2.Operation) -> model_pb2.ProcessedModel:
    """What came of an operation, which has to succeed."""
    done = await ended(api, operation)
    assert done.state == OperationState.OPERATION_STATE_SUCCEEDED, done
    response = model_pb2.ProcessedModel()
    assert done.response.Unpack(response)
    return response


async def stored(api: Api, content: bytes, revision: str = DRAFT) -> model_pb2.Model:
    """The model that these bytes have become."""
    return (await processed(api, await upload(api, content, revision))).model


async def failure(api: Api, operation: operation_pb2.Operation) -> tuple[str, str, str]:
    """Domain and reason of what an operation has failed with, and its message."""
    done = await ended(api, operation)
    assert done.state == OperationState.OPERATION_STATE_FAILED, done
    info = error_details_pb2.ErrorInfo()
    assert done.error.details[0].Unpack(info)
    return info.domain, info.reason, done.error.message


async def describe(api: Api, revision: str = DRAFT) -> model_pb2.Model:
    return (await stub(api).GetModel(model_pb2.GetModelRequest(revision=revision))).model


async def draw(api: Api, format_: str) -> str:
    return (await stub(api).GetModelGraph(model_pb2.GetModelGraphRequest(revision=DRAFT, format=format_))).text


async def sign(api: Api, revision: str = DRAFT, **fields: Any) -> model_pb2.SignModelDownloadResponse:
    return await stub(api).SignModelDownload(model_pb2.SignModelDownloadRequest(revision=revision, **fields))


async def delete(api: Api, **fields: Any) -> str:
    """Remove the model of the draft; the draft's new etag."""
    return (await stub(api).DeleteModel(model_pb2.DeleteModelRequest(revision=DRAFT, **fields))).revision_etag


async def download(api: Api, revision: str = DRAFT, **fields: Any) -> tuple[model_pb2.ModelArtifact, bytes]:
    """An artifact, and the bytes that came of it."""
    request = model_pb2.DownloadModelRequest(revision=revision, **fields)
    first, *others = [each async for each in stub(api).DownloadModel(request)]
    assert first.HasField("artifact")
    assert not first.chunk
    assert not any(each.HasField("artifact") for each in others)
    assert all(0 < len(each.chunk) <= 1 << 20 for each in others)
    return first.artifact, b"".join(each.chunk for each in others)
