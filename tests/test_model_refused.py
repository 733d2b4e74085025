"""Models that are refused: what they are, how they are sent, where they come to."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import acme
import grpc
import models
import onnx_models
import pytest
from blobhub.v1.onnx_error_pb2 import OnnxErrorReason
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.onnx.errors import ExtraNotInstalled, RefusedModel, refusal_error
from blobhub_server.onnx.intake import MAX_UPLOADS_PER_CALLER
from blobhub_server.onnx.refusal import RefusalReason, Refused
from blobhub_server.onnx.runtime import ExtraMissing
from calling import ask, outcome
from models import DRAFT, ONNX, Start, describe, put, upload
from onnx_hostile import hostile
from onnx_models import magika, relu
from scale import sample
from served import Api, Served, connected, served
from waiting import until

pytestmark = pytest.mark.either_database

SMALL = relu().SerializeToString()
STALL_SECONDS = 10.0
INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
async def served_once(tmp_path: Path) -> AsyncIterator[Served]:
    """A server on SQLite: what becomes of bytes is the same on every database."""
    async with served(tmp_path / "data", model_processes=2) as made:
        yield made


async def test_each_kind_of_bad_model_fails_its_operation_with_its_reason_and_leaves_the_draft(served_once: Served) -> None:
    async with connected(served_once.address, served_once.admin_key) as api:
        await models.blob(api)
        before = await acme.get_revision(api, DRAFT)
        picked = sample([each for each in hostile() if each.data], lambda each: [each.reason], seed=3)
        bad = [(each.name, each.data, each.reason) for each in picked]
        outside = onnx_models.in_initializer(onnx_models.external("/etc/passwd")).SerializeToString()
        bad.append(("data in another file", outside, RefusalReason.EXTERNAL_DATA))
        sent = [(name, reason, await upload(api, data)) for name, data, reason in bad]
        for name, reason, operation in sent:
            domain, found, message = await models.failure(api, operation)
            print(f"{name}: {found}: {message}")
            assert (domain, found) == (ONNX, reason), name
            assert message
        assert await acme.get_revision(api, DRAFT) == before
        await expect_refusal(describe(api), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        # The server goes on.
        assert (await models.stored(api, SMALL)).node_count == 1


@pytest.mark.parametrize("send", [put, upload], ids=lambda send: send.__name__)
async def test_a_bad_archive_fails_its_operation(served_once: Served, send) -> None:
    bad = {
        "no archive": SMALL,
        "another name": models.archive(SMALL, "../model.onnx"),
        "truncated": models.archive(magika().read_bytes())[:-1000],
        "something after its end": models.archive(SMALL) + b"more",
    }
    async with connected(served_once.address, served_once.admin_key) as api:
        await models.blob(api)
        for name, data in bad.items():
            operation = await send(api, data, form="MODEL_FORM_TAR_GZ")
            assert (await models.failure(api, operation))[:2] == (ONNX, "MODEL_ARCHIVE"), name
        # A model that is no model in an archive that is one.
        garbage = await send(api, models.archive(b"garbage"), form="MODEL_FORM_TAR_GZ")
        assert (await models.failure(api, garbage))[:2] == (ONNX, "MODEL_UNREADABLE")


async def test_bytes_that_are_not_those_announced_are_refused_and_nothing_is_begun(api: Api) -> None:
    await models.blob(api)
    other = hashlib.sha256(b"others").hexdigest()
    for send in (put, upload):
        await expect_refusal(send(api, SMALL, sha256=other), INVALID, "INVALID_VALUE")
    for size in (len(SMALL) - 1, len(SMALL) + 1):
        await expect_refusal(upload(api, SMALL, size=size), INVALID, "INVALID_VALUE")
    await expect_refusal(upload(api, b""), INVALID, "INVALID_VALUE")
    await expect_refusal(put(api, b""), INVALID, "INVALID_REQUEST")
    assert not (await ask(api, "ListOperations", blob="acme/scorer")).operations
    digest = hashlib.sha256(SMALL).hexdigest()
    await models.processed(api, await upload(api, SMALL, size=len(SMALL), sha256=digest))


async def test_what_is_said_again_or_in_the_wrong_message_is_refused(api: Api) -> None:
    await models.blob(api)
    first = Start(revision=DRAFT, chunk=SMALL)
    for second in (Start(revision=DRAFT, chunk=b"x"), Start(size=7, chunk=b"x"), Start()):
        assert await outcome(models.send(api, iter([first, second]))) in ("INVALID_VALUE", "INVALID_REQUEST")
    assert await outcome(models.send(api, iter([Start(chunk=SMALL)]))) == "INVALID_REFERENCE"
    assert await outcome(models.send(api, iter([]))) == "INVALID_REQUEST"
    too_large = Start(revision=DRAFT, chunk=bytes((1 << 20) + 1))
    assert await outcome(models.send(api, iter([too_large]))) == "INVALID_REQUEST"
    no_digest = Start(revision=DRAFT, chunk=SMALL, request_id="01890000-0000-7000-8000-000000000000")
    assert await outcome(models.send(api, iter([no_digest]))) == "INVALID_REQUEST"


async def test_a_model_with_too_many_bytes_is_refused_while_they_arrive(api: Api) -> None:
    """Announced or not, and in an archive, too. A limit that is lowered leaves what is there."""
    await models.blob(api)
    await models.stored(api, magika().read_bytes())
    await _limit(api, 100_000)
    over = asyncio.Event()
    sending = models.send(api, _and_wait(over, Start(revision=DRAFT), Start(chunk=bytes(100_001))))
    refused = await expect_refusal(sending, EXHAUSTED, "LIMIT_EXCEEDED")
    over.set()
    assert "onnx.model_bytes is 100000" in (refused.details() or "")
    refused = await expect_refusal(upload(api, SMALL, size=100_001), EXHAUSTED, "LIMIT_EXCEEDED")
    assert "onnx.model_bytes" in (refused.details() or "")
    bomb = await put(api, models.archive(bytes(1 << 20)), form="MODEL_FORM_TAR_GZ")
    assert (await models.failure(api, bomb))[:2] == (ONNX, "MODEL_TOO_LARGE")
    assert (await describe(api)).size > 100_000
    (held,) = [
        each for each in (await ask(api, "GetLimits", parent="acme/scorer")).limits if each.name == "onnx.model_bytes"
    ]
    assert held.held == magika().stat().st_size


async def _and_wait(over: asyncio.Event, *messages: Start) -> AsyncIterator[Start]:
    """Some messages of an upload that then stalls, until it is over, or for long: gRPC's client may wait for that itself."""
    for message in messages:
        yield message
    with suppress(TimeoutError):
        async with asyncio.timeout(STALL_SECONDS):
            await over.wait()


async def test_the_bytes_of_the_blob_are_limited(api: Api) -> None:
    await models.blob(api)
    await ask(api, "UpdateLimit", parent="acme/scorer", name="blob.bytes", value=1000)
    failed = await models.failure(api, await put(api, magika().read_bytes()))
    assert failed[:2] == ("blobhub", "LIMIT_EXCEEDED")


async def test_a_sender_who_stalls_is_ended_and_keeps_no_other_call_waiting(tmp_path: Path) -> None:
    async with served(tmp_path / "data", request_seconds=1.0) as server, connected(server.address, server.admin_key) as api:
        await models.blob(api)
        over = asyncio.Event()
        stalling = (_and_wait(over, Start(revision=DRAFT, chunk=SMALL)) for _ in range(MAX_UPLOADS_PER_CALLER))
        stalled = [asyncio.create_task(outcome(models.send(api, each))) for each in stalling]
        await acme.get_blob(api, "acme/scorer")
        assert await asyncio.gather(*stalled) == ["REQUEST_UNFINISHED"] * MAX_UPLOADS_PER_CALLER
        over.set()
        await models.stored(api, SMALL)
        parts = tmp_path / "data" / "objects" / "parts"
        await until(lambda: not any(parts.iterdir()))


async def test_no_caller_has_more_uploads_under_way_than_they_may(api: Api) -> None:
    await models.blob(api)
    going_on = asyncio.Event()
    waiting = (_and_wait(going_on, Start(revision=DRAFT, chunk=SMALL)) for _ in range(MAX_UPLOADS_PER_CALLER + 1))
    uploads = {asyncio.create_task(outcome(models.send(api, each))) for each in waiting}
    first, others = await asyncio.wait(uploads, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in first] == ["OVERLOADED"]
    going_on.set()
    assert await asyncio.gather(*others) == ["OK"] * MAX_UPLOADS_PER_CALLER
    await models.stored(api, SMALL)


async def test_an_upload_that_is_broken_off_leaves_nothing(api: Api, server: Served) -> None:
    await models.blob(api)
    over, chunk = asyncio.Event(), bytes(1 << 20)
    call = models.stub(api).UploadModel(_and_wait(over, Start(revision=DRAFT, chunk=chunk), Start(chunk=chunk)))
    parts = server.settings.data_dir / "objects" / "parts"
    await until(lambda: any(parts.iterdir()))
    call.cancel()
    over.set()
    await until(lambda: not any(parts.iterdir()))
    assert not (await ask(api, "ListOperations", blob="acme/scorer")).operations


async def test_a_server_without_the_packages_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ExtraMissing

    monkeypatch.setattr("blobhub_server.onnx.intake.require_extra", missing)
    async with served(tmp_path / "data") as server, connected(server.address, server.admin_key) as api:
        await models.blob(api)
        for send in (put, upload):
            await expect_refusal(send(api, SMALL), grpc.StatusCode.FAILED_PRECONDITION, "EXTRA_MISSING")


def test_every_reason_of_a_refusal_is_declared_and_has_an_error_of_its_own() -> None:
    declared = {name.removeprefix("ONNX_ERROR_REASON_") for name in OnnxErrorReason.DESCRIPTOR.values_by_name}
    assert {reason.value for reason in RefusalReason} == {name for name in declared if name.startswith("MODEL_")}
    for reason in RefusalReason:
        error = refusal_error(Refused(reason, "why"))
        assert isinstance(error, RefusedModel)
        assert (error.reason, error.message) == (reason.value, "why")
    assert ExtraNotInstalled.reason in declared


async def _limit(api: Api, value: int) -> None:
    await ask(api, "UpdateLimit", parent="acme/scorer", name="onnx.model_bytes", value=value)
