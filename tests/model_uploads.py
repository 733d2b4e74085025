"""Uploads of models in parts, as a client makes them: calls, and HTTP requests that the server has signed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import acme
import fake_google
import grpc
import httpx
import models
import numpy as np
import onnx_models
import pytest
from blobhub.v1 import model_upload_pb2 as pb
from blobhub.v1 import operation_pb2
from blobhub_server import app
from blobhub_server.platform.blobs.object_collection import ObjectCollector
from calling import ask
from databases import select
from onnx import helper, numpy_helper
from served import Api, connected, served
from waiting import until

ONNX = "blobhub.model.onnx"
DRAFT = "acme/scorer@draft"
PART = 64 << 10
"""The smallest part."""
STORES = ("local", "google")
ON_ITS_WAY = (pb.MODEL_UPLOAD_STATE_OPEN, pb.MODEL_UPLOAD_STATE_COMPLETING)


def model_of(size: int, seed: int = 0) -> bytes:
    """A sound model of about so many bytes, all of which count."""
    weights = np.random.default_rng(seed).random(size // 4, np.float32)
    nodes = [helper.make_node("ReduceSum", ["w"], ["s"], keepdims=0), helper.make_node("Add", ["x", "s"], ["y"])]
    return onnx_models.model(nodes, initializer=[numpy_helper.from_array(weights, "w")]).SerializeToString()


def store_objects(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the servers of a test in this process keep objects in a store of a kind."""
    if kind == "google":
        client, prefix = request.getfixturevalue("google_client"), f"servers/{uuid4()}"
        monkeypatch.setattr(app, "open_objects", lambda *_: fake_google.google_objects(client, prefix))


async def scorer(api: Api) -> None:
    """An organization with a model blob that has nothing in it."""
    await acme.organization(api)
    await acme.blob(api, "acme/scorer", ONNX)


def collectors_at_rest(monkeypatch: pytest.MonkeyPatch) -> list[ObjectCollector]:
    """The collectors of the servers that are started from now on, which collect when they are told to."""
    found: list[ObjectCollector] = []

    async def rest(collector: ObjectCollector) -> None:
        found.append(collector)
        await asyncio.Event().wait()

    monkeypatch.setattr(ObjectCollector, "collect_forever", rest)
    return found


async def left_after_collecting(collector: ObjectCollector) -> tuple[set[str], list[str]]:
    """The objects that are left when all was collected that may be, by digest, and the uploads that have parts."""
    for _ in range(2):
        await collector.take_pass()
    objects = collector._objects
    return {each.digest for each in await objects.page("", 1000)}, await objects.uploads("", 1000)


async def nothing_is_left(tmp_path: Path, url: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look whether there is nothing in the object store but what revisions hold, once it was collected."""
    collectors = collectors_at_rest(monkeypatch)
    async with served(tmp_path / "data", url) as server, connected(server.address, key):
        await until(lambda: bool(collectors))
        objects, uploads = await left_after_collecting(collectors[0])
    assert uploads == []
    assert objects == {digest for (digest,) in await select(url, "SELECT DISTINCT digest FROM entries")}
    assert [*(tmp_path / "data" / "objects" / "parts").iterdir()] == []


class Caller(Protocol):
    """Makes calls by the names of their methods."""

    api: Api

    async def __call__(self, name: str, /, **fields: Any) -> Any:
        """Make a call; its answer."""


class Sender:
    """Sends a file in parts."""

    def __init__(self, api: Api, client: httpx.AsyncClient, upload: pb.ModelUpload, data: bytes) -> None:
        self.api, self.client, self.id, self.upload, self.data = api, client, upload.id, upload, data
        self.etags: dict[int, str] = {}

    @property
    def numbers(self) -> range:
        return range(1, self.upload.part_count + 1)

    def part(self, number: int) -> bytes:
        """The bytes of a part. Nothing else is copied: of a large file that would hold up the client for seconds."""
        start = (number - 1) * self.upload.part_size
        return self.data[start : start + self.upload.part_size]

    async def sign(self, *numbers: int) -> list[pb.SignedModelUploadPart]:
        return [
            *(
                await self.api.model_uploads.SignModelUploadParts(
                    pb.SignModelUploadPartsRequest(model_upload=self.id, numbers=numbers)
                )
            ).parts
        ]

    async def put(self, number: int, data: bytes | None = None) -> httpx.Response:
        """Send a part, with other bytes than its own where some are given, and keep its ETag."""
        (signed,) = await self.sign(number)
        answer = await self.send(signed, self.part(number) if data is None else data)
        if answer.status_code == 200:
            self.etags[number] = answer.headers["etag"]
        return answer

    async def send(self, signed: pb.SignedModelUploadPart, data: bytes) -> httpx.Response:
        return await self.client.request(signed.method, signed.url, headers=dict(signed.headers), content=data)

    async def put_all(self, numbers: Iterable[int] | None = None) -> None:
        for number in self.numbers if numbers is None else numbers:
            answer = await self.put(number)
            assert answer.status_code == 200, answer.text

    async def parts(self, **fields: object) -> list[pb.ModelUploadPart]:
        return [
            *(
                await self.api.model_uploads.ListModelUploadParts(
                    pb.ListModelUploadPartsRequest(model_upload=self.id, page_size=1000, **fields)
                )
            ).parts
        ]

    def sent(self, etags: dict[int, str] | None = None) -> list[pb.SentModelUploadPart]:
        found = self.etags if etags is None else etags
        return [pb.SentModelUploadPart(number=number, etag=found.get(number, "none")) for number in self.numbers]

    async def complete(self, **fields: object) -> str:
        """Complete it; the id of the operation."""
        fields = {"parts": self.sent()} | fields
        return (
            await self.api.model_uploads.CompleteModelUpload(pb.CompleteModelUploadRequest(model_upload=self.id, **fields))
        ).operation.id

    async def cancel(self) -> pb.ModelUpload:
        return (
            await self.api.model_uploads.CancelModelUpload(pb.CancelModelUploadRequest(model_upload=self.id))
        ).model_upload

    async def get(self) -> pb.ModelUpload:
        return (await self.api.model_uploads.GetModelUpload(pb.GetModelUploadRequest(model_upload=self.id))).model_upload

    async def state(self) -> str:
        return pb.ModelUploadState.Name((await self.get()).state).removeprefix("MODEL_UPLOAD_STATE_")

    async def ended(self) -> str:
        """The state that it ends in."""

        async def has_ended() -> str:
            state = await self.state()
            return "" if state in ("OPEN", "COMPLETING") else state

        return await until(has_ended)


@asynccontextmanager
async def sending(api: Api, data: bytes, **fields: object) -> AsyncIterator[Sender]:
    """A new upload of a file, in the smallest parts unless told otherwise."""
    fields = {"revision": DRAFT, "form": "MODEL_FORM_ONNX", "size": len(data), "part_size": PART} | fields
    made = await api.model_uploads.CreateModelUpload(pb.CreateModelUploadRequest(**fields))
    async with httpx.AsyncClient(timeout=60) as client:
        yield Sender(api, client, made.model_upload, data)


async def in_parts(
    api: Api, content: bytes, revision: str = DRAFT, *, etag: str = "", create_only: bool = False, **fields: Any
) -> operation_pb2.Operation:
    """Send a model in parts, from the last one on; the operation that completes the upload."""
    async with sending(api, content, revision=revision, **{"part_size": 1 << 20} | fields) as sender:
        await sender.put_all([*sender.numbers][::-1])
        return operation_pb2.Operation(id=await sender.complete(etag=etag, create_only=create_only))


async def in_parts_archive(api: Api, content: bytes, revision: str = DRAFT, **fields: Any) -> operation_pb2.Operation:
    return await in_parts(api, models.archive(content), revision, form="MODEL_FORM_TAR_GZ", **fields)


async def stored(api: Api, revision: str = DRAFT) -> str:
    """The digest of the model that a revision has; empty for none."""
    try:
        return (await ask(api, "GetModel", revision=revision)).model.digest
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return ""
        raise


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def live(call: Caller, name: str) -> None:
    """What models of an organization may go through: all ways to send one, by calls that `call` makes."""
    await call("CreateBlob", organization=name, alias="scorer", type=ONNX)
    draft, good = f"{name}/scorer@draft", onnx_models.relu().SerializeToString()
    refused = await call("PutModel", revision=draft, content=b"no archive", form="MODEL_FORM_TAR_GZ")
    accepted = await call("UploadModel", revision=draft, chunk=good, sha256=sha256(good))
    for answer in (refused, accepted):
        await until(partial(models.has_ended, call.api, answer.operation.id))
    await call("DeleteModel", revision=draft)
    gone = (await call("CreateModelUpload", revision=draft, size=1)).model_upload
    await call("CancelModelUpload", model_upload=gone.id)
    upload = (await call("CreateModelUpload", revision=draft, size=len(good))).model_upload
    etag = await until(partial(_sent, call.api, upload.id, good))
    answer = await call("CompleteModelUpload", model_upload=upload.id, parts=[{"number": 1, "etag": etag}])
    await until(partial(models.has_ended, call.api, answer.operation.id))


async def _sent(api: Api, upload_id: str, data: bytes) -> str:
    """The ETag of the only part of an upload; empty where the network loses a request."""
    with suppress(grpc.aio.AioRpcError):
        (signed,) = (await ask(api, "SignModelUploadParts", model_upload=upload_id, numbers=[1])).parts
        async with httpx.AsyncClient() as client:
            return (await client.put(signed.url, content=data)).headers["etag"]
    return ""
