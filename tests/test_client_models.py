"""Models up and down with both Python clients, over networks that lose calls and cut connections."""

from __future__ import annotations

import asyncio
import io
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc
import model_uploads
import pytest
from blobhub.v1.blob_pb2 import CreateBlobRequest
from blobhub.v1.model_pb2 import DownloadModelRequest, ProcessedModel, UploadModelRequest
from blobhub.v1.operation_pb2 import OPERATION_STATE_CANCELLED, Operation
from blobhub.v1.organization_pb2 import CreateOrganizationRequest
from blobhub_client import CallError, TransferError, connect, models, sync
from blobhub_client.policy import Policy
from conformance.network import LosingTwice, cutting
from dropping import Fate, dropping
from scale import scaled
from served import Api, Served

pytestmark = pytest.mark.either_database

DRAFT = "acme/scorer@draft"
SIZE, CUTS = scaled(20_000_000, least=600_000), 3
BEHIND = b"what stands in the file before the model"


@dataclass
class Moved:
    """What a client has stored and fetched, and what it told meanwhile."""

    content: bytes
    stored: ProcessedModel | None = None
    whole: io.BytesIO = field(default_factory=io.BytesIO)
    part: io.BytesIO = field(default_factory=io.BytesIO)
    sent: list[tuple[int, int]] = field(default_factory=list)
    came: list[tuple[int, int]] = field(default_factory=list)

    def file(self) -> io.BytesIO:
        made = io.BytesIO(BEHIND + self.content)
        made.seek(len(BEHIND))
        return made


RANGE = DownloadModelRequest(revision=DRAFT, offset=SIZE // 3, length=SIZE // 3)


async def move_with_asyncio(up: str, down: str, key: str, moved: Moved) -> None:
    async with connect(up, key) as sending, connect(down, key) as fetching:
        request = UploadModelRequest(revision=DRAFT)
        operation = await sending.upload_model(request, moved.file(), progress=lambda *told: moved.sent.append(told))
        moved.stored = await fetching.outcome(operation.id, ProcessedModel)
        whole = DownloadModelRequest(revision=DRAFT)
        await fetching.download_model(whole, moved.whole, progress=lambda *told: moved.came.append(told))
        await fetching.download_model(RANGE, moved.part)


async def move_with_threads(up: str, down: str, key: str, moved: Moved) -> None:
    def move() -> None:
        with sync.connect(up, key) as sending, sync.connect(down, key) as fetching:
            request = UploadModelRequest(revision=DRAFT)
            operation = sending.upload_model(request, moved.file(), progress=lambda *told: moved.sent.append(told))
            moved.stored = fetching.outcome(operation.id, ProcessedModel)
            whole = DownloadModelRequest(revision=DRAFT)
            fetching.download_model(whole, moved.whole, progress=lambda *told: moved.came.append(told))
            fetching.download_model(RANGE, moved.part)

    await asyncio.to_thread(move)


@pytest.mark.parametrize("move", [move_with_asyncio, move_with_threads], ids=["asyncio", "threads"])
async def test_a_model_is_stored_once_and_fetched_byte_for_byte_over_bad_networks(
    server: Served, api: Api, move: Callable[[str, str, str, Moved], Awaitable[None]]
) -> None:
    await api.organizations.CreateOrganization(CreateOrganizationRequest(alias="acme"))
    await api.blobs.CreateBlob(CreateBlobRequest(organization="acme", alias="scorer", type=model_uploads.ONNX))
    moved = Moved(content=model_uploads.model_of(SIZE))
    size = len(moved.content)
    async with (
        dropping(server.address, 1, LosingTwice) as (losing, lost),
        cutting(server.address, CUTS, 1) as (cut, cuts),
    ):
        await move(losing, cut, server.admin_key, moved)
    assert {Fate.REQUEST_LOST, Fate.ANSWER_LOST} <= lost.fates.keys()
    assert cuts.cuts == CUTS
    assert moved.stored is not None
    assert moved.stored.model.size == size
    assert moved.whole.getvalue() == moved.content
    assert moved.part.getvalue() == moved.content[RANGE.offset : RANGE.offset + RANGE.length]
    assert moved.sent[-1] == moved.came[-1] == (size, size)
    assert all(earlier < later for (earlier, _), (later, _) in itertools.pairwise(moved.came))
    async with connect(server.address, server.admin_key) as hub:
        told = [entry async for entry in hub.watch_audit("acme/scorer", replay_only=True)]
        made = [entry.method for entry in told if entry.code == "OK"]
        assert made.count("blobhub.v1.ModelService/UploadModel") == 1


async def test_a_model_that_is_none_is_refused_with_a_reason_of_its_type(server: Served, api: Api) -> None:
    await api.organizations.CreateOrganization(CreateOrganizationRequest(alias="acme"))
    await api.blobs.CreateBlob(CreateBlobRequest(organization="acme", alias="scorer", type=model_uploads.ONNX))
    async with connect(server.address, server.admin_key) as hub:
        operation = await hub.upload_model(UploadModelRequest(revision=DRAFT), io.BytesIO(b"no model"))
        with pytest.raises(CallError) as raised:
            await hub.outcome(operation.id, ProcessedModel)
        assert raised.value.domain == model_uploads.ONNX
        assert raised.value.reason
        with pytest.raises(CallError, match="NOT_FOUND"):
            await hub.download_model(DownloadModelRequest(revision="acme/scorer@3"), io.BytesIO())


async def test_a_refusal_while_much_is_on_the_way_is_told_with_its_reason(server: Served, api: Api) -> None:
    await api.organizations.CreateOrganization(CreateOrganizationRequest(alias="acme"))
    first, content = UploadModelRequest(revision="acme/nothing@draft"), io.BytesIO(bytes(8_000_000))

    def upload() -> None:
        with sync.connect(server.address, server.admin_key) as hub:
            hub.upload_model(first, content)

    async with connect(server.address, server.admin_key) as hub:
        for uploading in (hub.upload_model(first, content), asyncio.to_thread(upload)):
            with pytest.raises(CallError) as raised:
                await uploading
            assert raised.value.reason == "NOT_FOUND"
            content.seek(0)


def test_an_operation_that_was_cancelled_answers_nothing() -> None:
    with pytest.raises(TransferError, match="CANCELLED"):
        models.response(Operation(id="1", state=OPERATION_STATE_CANCELLED), ProcessedModel)


def test_a_model_that_was_replaced_meanwhile_or_came_wrong_is_not_taken_for_one() -> None:
    def come(*digests: str) -> models.Download:
        download = models.Download(DownloadModelRequest(revision=DRAFT), io.BytesIO(), Policy())
        for digest in digests:
            download.take(models.DownloadModelResponse(artifact={"size": 1, "digest": digest}))
            download.take(models.DownloadModelResponse(chunk=b"x"))
        return download

    with pytest.raises(TransferError, match="replaced"):
        come("one", "another")
    with pytest.raises(TransferError, match="not what was stored"):
        come("one").finish()


def test_a_download_that_brings_nothing_is_given_up_after_so_many_attempts() -> None:
    download = models.Download(DownloadModelRequest(revision=DRAFT), io.BytesIO(), Policy(attempts=3))
    error = CallError(grpc.StatusCode.UNAVAILABLE)
    download.wait(error)
    download.wait(error)
    with pytest.raises(CallError):
        download.wait(error)
