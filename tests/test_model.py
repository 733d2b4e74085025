"""Models over a real channel: sent in every way, described, drawn, handed out, removed."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable

import acme
import flows
import grpc
import httpx
import models
import pytest
from blobhub.v1 import operation_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from calling import outcome
from inferring import doubling
from model_uploads import in_parts, in_parts_archive
from models import DRAFT, describe, download, put, put_archive, upload, upload_archive
from onnx_models import magika, relu
from served import Api, Served

pytestmark = pytest.mark.either_database

SMALL = relu().SerializeToString()
OTHER = doubling().SerializeToString()
Send = Callable[..., Awaitable[operation_pb2.Operation]]


CALLS = (put, upload, put_archive, upload_archive)
"""The ways that are one call."""


def each(*ways: Send) -> pytest.MarkDecorator:
    """Try each of some ways to send a model."""
    return pytest.mark.parametrize("send", ways, ids=lambda send: send.__name__)


async def test_a_model_is_described(api: Api) -> None:
    await models.blob(api)
    model = await models.stored(api, magika().read_bytes())
    (taken,), (given,) = model.inputs, model.outputs
    assert (taken.name, taken.datatype, taken.type, [*taken.shape.dimensions]) == (
        "bytes",
        "INT32",
        "tensor(int32)",
        [-1, 2048],
    )
    assert (given.name, given.datatype, [*given.shape.dimensions]) == ("target_label", "FP32", [-1, 214])
    assert {each.domain: each.version for each in model.opsets}["ai.onnx"] == 15
    assert (model.producer_name, model.node_count) == ("tf2onnx", 95)
    assert model.parameter_count > 700_000
    artifact, document = await download(api, artifact="model.json")
    assert artifact in model.artifacts
    assert artifact.digest == hashlib.sha256(document).hexdigest()
    assert len(json.loads(document)["graph"]["nodes"]) == 95
    assert (await models.draw(api, "MODEL_GRAPH_FORMAT_DOT")).startswith("digraph model {")
    assert (await models.draw(api, "MODEL_GRAPH_FORMAT_MERMAID")).startswith("flowchart TD")


async def test_ranges_are_those_of_the_file(api: Api) -> None:
    sent = magika().read_bytes()
    await models.blob(api)
    await models.stored(api, sent)
    whole, last = len(sent), 1 << 20
    for offset, length in (
        (0, 1),
        (1, 1),
        (last - 1, 2),
        (last, last),
        (whole - 7, 7),
        (whole - 7, 100),
        (5, 0),
        (whole, 0),
    ):
        artifact, received = await download(api, offset=offset, length=length)
        assert received == sent[offset : offset + length if length else whole]
        assert artifact.size == whole
    await expect_refusal(download(api, offset=whole + 1), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE")


async def test_a_signed_download_needs_no_key_and_takes_ranges(api: Api, server: Served) -> None:
    sent = magika().read_bytes()
    await models.blob(api)
    model = await models.stored(api, sent)
    signed = await models.sign(api)
    assert signed.artifact == model.artifacts[0]
    async with httpx.AsyncClient() as client:
        answer = await client.request(signed.method, signed.url, headers=dict(signed.headers))
        part = await client.request(signed.method, signed.url, headers={**signed.headers, "range": "bytes=10-19"})
    assert answer.content == sent
    assert part.content == sent[10:20]


async def test_a_model_is_kept_in_a_commit_and_replaced_and_removed_in_a_draft(api: Api) -> None:
    await models.blob(api)
    first = await models.stored(api, SMALL)
    await acme.commit(api, DRAFT)
    await acme.branch(api, blob="acme/scorer")
    assert (await describe(api)).digest == first.digest
    second = await models.stored(api, magika().read_bytes())
    assert (await describe(api, "acme/scorer@latest")).digest == first.digest != second.digest
    etag = (await acme.get_revision(api, DRAFT)).etag
    assert await models.delete(api, etag=etag) != etag
    await expect_refusal(describe(api), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    await expect_refusal(models.delete(api), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    await expect_refusal(acme.commit(api, DRAFT), grpc.StatusCode.FAILED_PRECONDITION, "INVALID_CONTENT")
    assert (await download(api, "acme/scorer@latest"))[1] == SMALL


@each(*CALLS, in_parts, in_parts_archive)
async def test_a_model_is_refused_at_once_where_it_could_not_be_written(api: Api, send: Send) -> None:
    await models.blob(api)
    etag = (await acme.get_revision(api, DRAFT)).etag
    assert await outcome(send(api, SMALL, etag="*")) == "NOT_FOUND"
    await models.processed(api, await send(api, SMALL, etag=etag, create_only=True))
    assert await outcome(send(api, SMALL, etag=etag)) == "STALE_ETAG"
    assert await outcome(send(api, SMALL, create_only=True)) == "ALREADY_EXISTS"
    await models.processed(api, await send(api, SMALL, etag="*"))
    await acme.commit(api, DRAFT)
    assert await outcome(send(api, SMALL, revision="acme/scorer@latest")) == "WRONG_PHASE"
    await acme.blob(api, "acme/pipeline")
    assert await outcome(send(api, SMALL, revision="acme/pipeline@draft")) == "WRONG_BLOB_TYPE"


@each(put, in_parts)
async def test_an_etag_holds_until_the_model_is_written(api: Api, send: Send) -> None:
    """Of two that begin with the same etag the one that ends first is written, and the other one fails."""
    await models.blob(api)
    etag = (await acme.get_revision(api, DRAFT)).etag
    begun = [await send(api, SMALL, etag=etag), await send(api, OTHER, etag=etag)]
    done = [await models.ended(api, operation) for operation in begun]
    assert sorted(each.WhichOneof("result") for each in done) == ["error", "response"]
    (failed,) = [each for each in done if each.HasField("error")]
    assert (await models.failure(api, failed))[:2] == ("blobhub", "STALE_ETAG")


@each(put, in_parts)
async def test_what_only_creates_leaves_a_model_that_has_come_meanwhile(api: Api, send: Send) -> None:
    await models.blob(api)
    begun = [await send(api, content, create_only=True) for content in (SMALL, OTHER)]
    done = [await models.ended(api, operation) for operation in begun]
    (failed,) = [each for each in done if each.HasField("error")]
    assert (await models.failure(api, failed))[:2] == ("blobhub", "ALREADY_EXISTS")
    assert (await download(api))[1] in (SMALL, OTHER)


@each(*CALLS)
async def test_a_repeated_request_gets_the_first_operation(api: Api, send: Send) -> None:
    await models.blob(api)
    packed = models.archive(SMALL) if "archive" in send.__name__ else SMALL
    again = {"request_id": str(uuid.uuid4()), "sha256": hashlib.sha256(packed).hexdigest()}
    first = await send(api, SMALL, **again)
    await models.processed(api, first)
    assert (await send(api, SMALL, **again)).id == first.id
    assert await outcome(send(api, SMALL, **again, create_only=True)) == "REQUEST_ID_REUSED"


async def test_models_of_a_public_blob_are_for_everybody_and_those_of_a_private_one_are_not(
    api: Api, anonymous: Api, server: Served
) -> None:
    await models.blob(api)
    await models.stored(api, SMALL)
    await acme.commit(api, DRAFT)
    published = "acme/scorer@default"
    assert await outcome(describe(anonymous, published)) == "UNAUTHENTICATED"
    assert await outcome(download(anonymous, published)) == "UNAUTHENTICATED"
    await acme.update_blob(api, "acme/scorer", visibility=acme.PUBLIC, update_mask={"paths": ["visibility"]})
    assert (await download(anonymous, published))[1] == SMALL
    signed = await models.sign(anonymous, published)
    async with httpx.AsyncClient() as client:
        assert (await client.get(signed.url)).content == SMALL
    assert await outcome(upload(anonymous, SMALL)) == "UNAUTHENTICATED"
    async with acme.person(server, api, "reader", ("acme/scorer", acme.READ)) as reader:
        assert await outcome(upload(reader, SMALL)) == "PERMISSION_DENIED"
        assert await outcome(put(reader, SMALL)) == "PERMISSION_DENIED"


async def test_a_workflow_has_no_model(api: Api) -> None:
    await api.session(flows.steps(1))
    for call in (describe, download):
        assert await outcome(call(api, "acme/pipeline@draft")) == "WRONG_BLOB_TYPE"
