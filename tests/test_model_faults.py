"""Object stores that fail in the middle: callers are told so, nothing is half there, and all goes on when they are back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import acme
import grpc
import httpx
import models
import pytest
from blobhub.v1 import inference_pb2, model_pb2
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.objects import google
from blobhub_server.platform.blobs.object_collection import ObjectCollector
from blobhub_server.platform.blobs.operations import attempt
from calling import ask, outcome, seconds_to_retry
from databases import select
from examining import examined_once
from inferring import doubling
from model_uploads import STORES, collectors_at_rest, left_after_collecting, model_of, sending, sha256, store_objects
from models import DRAFT, describe, put, upload
from served import Api, Served, connected, served
from store_faults import MANNERS, Faults, faults_of, told_of
from waiting import until

pytestmark = pytest.mark.either_database

MIB = 1 << 20
MODEL = model_of(2 * MIB + MIB // 2)
"""Of three blocks, so it has an outline."""
SMALL = MODEL[: MIB - 1]
DOUBLING = doubling().SerializeToString()
X = inference_pb2.InferenceTensor(name="x", datatype="FP32", shape=[1, 4], floats=[1, 2, 3, 4])


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of store that the server keeps objects in."""
    store_objects(request.param, request, monkeypatch)
    return request.param


@pytest.fixture
def faults(kind: str, monkeypatch: pytest.MonkeyPatch) -> Faults:
    """The faults of that store. Operations that it fails are tried again at once."""
    monkeypatch.setattr(attempt, "retry_seconds", lambda _: 0.02)
    examined_once(monkeypatch)
    return faults_of(kind, monkeypatch)


@pytest.fixture
def collectors(monkeypatch: pytest.MonkeyPatch) -> list[ObjectCollector]:
    """The collectors of the servers that are started, which collect when they are told to."""
    return collectors_at_rest(monkeypatch)


@pytest.fixture
async def server(tmp_path: Path, faults: Faults, collectors: list[ObjectCollector]) -> AsyncIterator[Served]:
    """A server on SQLite: what is stored where is the same on every database."""
    async with served(tmp_path / "data") as made:
        yield made


@pytest.fixture
async def owner(server: Served) -> AsyncIterator[Api]:
    """A client that has an empty model blob."""
    async with connected(server.address, server.admin_key) as api:
        await models.blob(api)
        yield api


async def refused(call: Awaitable[Any]) -> tuple[str, str]:
    """Code and reason of a call that the storage has failed; it says when it may be made again."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert seconds_to_retry(caught.value) > 0
    return caught.value.code().name, reason_of(caught.value)


async def nothing_is_left_over(server: Served, collectors: list[ObjectCollector]) -> None:
    """After the collector has run there is nothing in the store but what revisions hold."""
    held = await select(f"sqlite:///{server.settings.data_dir}/blobhub.db", "SELECT DISTINCT digest FROM entries")
    assert await left_after_collecting(collectors[0]) == ({digest for (digest,) in held}, [])
    parts = server.settings.data_dir / "objects" / "parts"
    assert not parts.exists() or not [*parts.iterdir()]


STEPS = {"local": ("write", "sync", "keep"), "google": ("write", "keep")}
"""What storing an object takes."""
SMALL_STEPS = {"local": STEPS["local"], "google": ("write",)}
"""The same of an object of one block."""


@pytest.mark.both_databases
@pytest.mark.parametrize("send", [put, upload], ids=lambda send: send.__name__)
async def test_a_model_that_cannot_be_stored_is_refused_so_and_leaves_nothing(
    owner: Api, server: Served, faults: Faults, kind: str, collectors, send: Callable[..., Awaitable[Any]]
) -> None:
    before = await acme.get_revision(owner, DRAFT)
    # gRPC's client may hide a refusal that comes while it sends. Of one block nothing is stored before all has come.
    content, steps = (MODEL, STEPS[kind]) if send is put else (SMALL, SMALL_STEPS[kind])
    for step in steps:
        for manner in MANNERS[kind][step]:
            with faults.failing(step, manner):
                assert await refused(send(owner, content)) == told_of(manner), (step, manner)
                assert faults.met
            assert await acme.get_revision(owner, DRAFT) == before
    assert not (await ask(owner, "ListOperations", blob="acme/scorer")).operations
    assert await outcome(describe(owner)) == "NOT_FOUND"
    await nothing_is_left_over(server, collectors)
    await models.stored(owner, DOUBLING)


async def test_a_part_that_cannot_be_stored_is_not_there_and_can_be_sent_again(
    owner: Api, server: Served, faults: Faults, kind: str, collectors
) -> None:
    steps = {"local": [(step, manner) for step in STEPS["local"] for manner in ("full", "broken")]}
    steps["google"] = [("part", manner) for manner in ("503", "429", "cut")]
    async with sending(owner, MODEL, part_size=MIB) as sender:
        await sender.put(2)
        for step, manner in steps[kind]:
            with faults.failing(step, manner):
                if manner == "cut":
                    with pytest.raises(httpx.TransportError):
                        await sender.put(1)
                else:
                    answer = await sender.put(1)
                    assert answer.status_code == (503 if kind == "local" else int(manner))
                if kind == "local":
                    assert answer.json()["reason"] == told_of(manner)[1]
                    assert int(answer.headers["retry-after"]) > 0
                    assert faults.reported
                assert faults.met
            assert [part.number for part in await sender.parts()] == [2]
        await sender.put_all([1, 3])
        assert len(await sender.parts()) == 3
        await sender.cancel()
    await nothing_is_left_over(server, collectors)


@pytest.mark.both_databases
async def test_an_upload_is_completed_and_processed_although_every_step_fails_in_every_way(
    owner: Api, server: Served, faults: Faults, kind: str, collectors
) -> None:
    async with sending(owner, MODEL, part_size=MIB, sha256=sha256(MODEL)) as sender:
        await sender.put_all()
        faults.plan(MANNERS[kind])
        operation_id = await until(lambda: completed(sender.complete()))
        assert await sender.ended() == "COMPLETED"
    assert set(faults.met) == {(step, manner) for step, manners in MANNERS[kind].items() for manner in manners}
    assert (await describe(owner)).digest == sha256(MODEL)
    assert [each.id for each in (await ask(owner, "ListOperations", blob="acme/scorer")).operations] == [operation_id]
    received = [message.chunk async for message in download(owner)]
    assert b"".join(received) == MODEL
    await nothing_is_left_over(server, collectors)


async def completed(call: Awaitable[str]) -> str:
    """The operation that completes an upload; nothing where the store has failed the call."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if reason_of(error) not in ("STORAGE_UNAVAILABLE", "STORAGE_FULL"):
            raise
        return ""


def download(api: Api, offset: int = 0) -> AsyncIterator[model_pb2.DownloadModelResponse]:
    return models.stub(api).DownloadModel(
        model_pb2.DownloadModelRequest(revision=DRAFT, artifact="model.onnx", offset=offset)
    )


READS = {"local": ("broken",), "google": ("503", "429", "half")}


async def test_a_download_that_the_store_breaks_off_says_so_and_goes_on_where_it_was(
    owner: Api, faults: Faults, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google, "BLOCKS_AT_ONCE", 1)
    await models.stored(owner, MODEL)
    for manner in READS[kind]:
        received = bytearray()

        async def read(received: bytearray) -> None:
            async for message in download(owner, len(received)):
                received.extend(message.chunk)

        # Google is asked for the outline first.
        with faults.failing("read", manner, after=1 if kind == "local" else 2):
            assert await refused(read(received)) == told_of("broken")
        assert len(received) == MIB
        await read(received)
        assert bytes(received) == MODEL


async def test_a_signed_download_that_the_store_breaks_off_is_no_whole_one(owner: Api, faults: Faults, kind: str) -> None:
    if kind == "google":
        pytest.skip("clients get it from Google")
    await models.stored(owner, MODEL)
    signed = await models.sign(owner)
    async with httpx.AsyncClient() as client:
        with faults.failing("read", "broken"):
            answer = await client.get(signed.url)
            assert (answer.status_code, answer.json()["reason"]) == (503, "STORAGE_UNAVAILABLE")
            assert faults.reported
        with faults.failing("read", "broken", after=2):
            with pytest.raises(httpx.TransportError):
                await client.get(signed.url)
            assert faults.reported
        assert (await client.get(signed.url)).content == MODEL


async def infer(api: Api) -> list[float]:
    return [*(await ask(api, "Infer", revision=DRAFT, inputs=[X])).outputs[0].floats]


async def test_a_model_whose_bytes_cannot_be_read_answers_as_soon_as_they_can(owner: Api, faults: Faults, kind: str) -> None:
    await models.stored(owner, DOUBLING)
    await describe(owner)  # The signature is known from here on.
    for manner in READS[kind]:
        with faults.failing("read", manner):
            assert await refused(infer(owner)) == told_of("broken")
            assert faults.met
    assert await infer(owner) == [2, 4, 6, 8]


async def test_a_model_whose_bytes_are_lost_says_so_until_they_are_there_again(
    owner: Api, server: Served, kind: str, collectors
) -> None:
    model = await models.stored(owner, DOUBLING)
    objects = collectors[0]._objects
    (lost,) = [each for each in await objects.page("", 10) if each.digest == model.digest]
    assert await objects.delete(lost)
    for _ in range(2):
        assert await outcome(infer(owner)) == "CONTENT_LOST"
    await objects.put(DOUBLING)
    assert await infer(owner) == [2, 4, 6, 8]
