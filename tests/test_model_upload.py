"""Models that come in parts: what is sent by signed requests is put together, compared and processed, and then there."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import acme
import google_crc32c
import grpc
import models
import pytest
from blobhub.v1 import model_upload_pb2 as pb
from blobhub.v1 import operation_pb2
from calling import ask, outcome
from model_uploads import DRAFT, PART, STORES, model_of, scorer, sending, sha256, store_objects, stored
from served import Api
from waiting import until

pytestmark = [pytest.mark.usefixtures("object_store"), pytest.mark.either_database]


@pytest.fixture(params=STORES)
def object_store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of store that the server keeps objects in."""
    store_objects(request.param, request, monkeypatch)
    return request.param


@pytest.fixture
async def owner(object_store: str, api: Api) -> Api:
    """A client that has an empty model blob."""
    await scorer(api)
    return api


MODEL = model_of(5 * PART)


@pytest.mark.both_databases
async def test_a_model_comes_in_parts_in_any_order(owner: Api) -> None:
    async with sending(owner, MODEL, sha256=sha256(MODEL)) as sender:
        upload = sender.upload
        assert (upload.part_count, upload.part_size, upload.size) == (6, PART, len(MODEL))
        await sender.put_all([6, 2, 4])
        await asyncio.gather(*map(sender.put, (1, 5, 3)))
        listed = await sender.parts()
        assert [(part.number, part.size) for part in listed] == [(n, len(sender.part(n))) for n in sender.numbers]
        assert {part.number: f'"{part.etag}"' for part in listed} == sender.etags
        assert not await stored(owner)
        operation_id = await sender.complete()
        assert await sender.ended() == "COMPLETED"
        upload = await sender.get()
        assert (upload.operation_id, upload.HasField("end_time")) == (operation_id, True)
        assert await stored(owner) == sha256(MODEL)
        assert await sender.complete() == operation_id
        assert await sender.parts() == []


async def test_an_archive_comes_in_parts(owner: Api) -> None:
    """What was announced is about the archive, and what is there in the end about the model in it."""
    packed = models.archive(MODEL)
    for data, state in ((packed[:-PART], "FAILED"), (packed, "COMPLETED")):
        announced = {"sha256": sha256(data), "crc32c": google_crc32c.value(data)}
        async with sending(owner, data, form="MODEL_FORM_TAR_GZ", **announced) as sender:
            assert sender.upload.part_count > 1
            await sender.put_all()
            operation_id = await sender.complete()
            assert await sender.ended() == state
            assert await stored(owner) == (sha256(MODEL) if state == "COMPLETED" else "")
        if state == "FAILED":
            failed = await models.failure(owner, operation_pb2.Operation(id=operation_id))
            assert failed[:2] == (models.ONNX, "MODEL_ARCHIVE")


async def test_completing_again_asks_nothing_more_of_the_draft(owner: Api) -> None:
    """A call that is repeated because its answer was lost gets it, although the draft has a model and a new etag by then."""
    etag = (await acme.get_revision(owner, DRAFT)).etag
    async with sending(owner, MODEL) as sender:
        await sender.put_all()
        assert await outcome(sender.complete(etag="stale")) == "STALE_ETAG"
        assert await outcome(sender.complete(etag="*")) == "NOT_FOUND"
        assert await outcome(sender.complete(etag="*", create_only=True)) == "INVALID_REQUEST"
        assert await sender.state() == "OPEN"
        operation_id = await sender.complete(etag=etag, create_only=True)
        assert await sender.ended() == "COMPLETED"
        for again in ({"etag": etag, "create_only": True}, {"etag": "stale"}, {}):
            assert await sender.complete(**again) == operation_id


@pytest.mark.both_databases
async def test_parts_are_listed_by_pages(owner: Api) -> None:
    async with sending(owner, MODEL) as sender:
        await sender.put_all([5, 1, 3])
        first = await ask(owner, "ListModelUploadParts", model_upload=sender.id, page_size=2)
        rest = await ask(
            owner, "ListModelUploadParts", model_upload=sender.id, page_size=2, page_token=first.next_page_token
        )
        assert [[part.number for part in page.parts] for page in (first, rest)] == [[1, 3], [5]]
        assert not rest.next_page_token


async def test_what_is_missing_or_another_part_is_named_and_can_be_sent(owner: Api) -> None:
    async with sending(owner, MODEL) as sender:
        await sender.put_all([1, 2, 4, 6])
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await sender.complete()
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "part 3 has not come; part 5 has not come" in (refused.value.details() or "")
        await sender.put_all([3, 5])
        former = dict(sender.etags)
        await sender.put(2, bytes(PART))
        assert await outcome(sender.complete(parts=sender.sent(former))) == "PARTS_MISMATCH"
        for wrong in (sender.sent()[:-1], sender.sent()[::-1], [*sender.sent(), sender.sent()[-1]]):
            assert await outcome(sender.complete(parts=wrong)) == "INVALID_VALUE"
        assert await sender.state() == "OPEN"
        await sender.put(2)
        assert sender.etags == former
        await sender.complete()
        assert await sender.ended() == "COMPLETED"
        assert await stored(owner) == sha256(MODEL)


async def test_a_part_of_another_size_is_refused(owner: Api, object_store: str) -> None:
    async with sending(owner, MODEL) as sender:
        for number, size in ((1, PART - 1), (1, PART + 1), (6, PART)):
            assert (await sender.put(number, bytes(size))).status_code in (400, 413)
        assert await sender.parts() == []
        assert await outcome(sender.sign(7)) == "INVALID_VALUE"


@pytest.mark.parametrize("announced", ["sha256", "crc32c"])
async def test_a_file_that_is_not_what_was_announced_is_not_stored(owner: Api, announced: str) -> None:
    right = {"sha256": sha256(MODEL), "crc32c": google_crc32c.value(MODEL)}
    wrong = {"sha256": sha256(b""), "crc32c": google_crc32c.value(MODEL) ^ 1}
    for value, state in ((wrong[announced], "FAILED"), (right[announced], "COMPLETED")):
        async with sending(owner, MODEL, **{announced: value}) as sender:
            await sender.put_all()
            await sender.complete()
            assert await sender.ended() == state
            assert await stored(owner) == (sha256(MODEL) if state == "COMPLETED" else "")


@pytest.mark.both_databases
async def test_completes_at_once_begin_one_operation(owner: Api) -> None:
    async with sending(owner, MODEL) as sender:
        await sender.put_all()
        ids = await asyncio.gather(*(sender.complete(request_id=str(uuid4())) for _ in range(8)))
        assert len({*ids}) == 1
        assert await sender.ended() == "COMPLETED"


@pytest.mark.both_databases
async def test_a_cancelled_upload_takes_nothing_more_and_leaves_no_parts(owner: Api) -> None:
    async with sending(owner, MODEL) as sender:
        await sender.put_all([1, 2])
        for _ in range(2):
            assert (await sender.cancel()).HasField("end_time")
        assert await sender.state() == "CANCELLED"
        assert await outcome(sender.sign(3)) == "UPLOAD_NOT_OPEN"
        assert await outcome(sender.complete()) == "UPLOAD_NOT_OPEN"

        async def has_no_parts() -> bool:
            return await sender.parts() == []

        await until(has_no_parts)


@pytest.mark.both_databases
async def test_uploads_are_listed_by_state(owner: Api) -> None:
    ids = []
    for number in range(5):
        async with sending(owner, MODEL) as sender:
            ids.append(sender.id)
            if number % 2:
                await sender.cancel()

    async def listed(**fields: object) -> list[str]:
        found, token = [], ""
        while True:
            request = pb.ListModelUploadsRequest(blob="acme/scorer", page_size=2, page_token=token, **fields)
            page = await owner.model_uploads.ListModelUploads(request)
            found += [upload.id for upload in page.model_uploads]
            if not (token := page.next_page_token):
                return found

    assert await listed() == ids[::-1]
    assert await listed(order_by="create_time") == ids
    assert await listed(state="MODEL_UPLOAD_STATE_OPEN") == ids[::-2]
    assert await listed(state="MODEL_UPLOAD_STATE_CANCELLED") == [ids[3], ids[1]]
    assert await listed(state="MODEL_UPLOAD_STATE_FAILED") == []


async def test_an_upload_is_for_a_draft_of_a_model_within_limits(owner: Api) -> None:
    await acme.blob(owner, "acme/pipeline")
    for revision, fields, reason in (
        ("acme/pipeline@draft", {}, "WRONG_BLOB_TYPE"),
        (DRAFT, {"size": 1 << 40, "part_size": 0}, "LIMIT_EXCEEDED"),
        (DRAFT, {"size": 10_001 * PART}, "INVALID_VALUE"),
        (DRAFT, {"size": 0}, "INVALID_REQUEST"),
        (DRAFT, {"sha256": "AB"}, "INVALID_REQUEST"),
    ):
        create = sending(owner, MODEL, revision=revision, **fields)
        assert await outcome(create.__aenter__()) == reason
    await ask(owner, "UpdateLimit", parent="acme/scorer", name="onnx.uploads_per_blob", value=1)
    async with sending(owner, MODEL) as sender:
        assert await outcome(sending(owner, MODEL).__aenter__()) == "LIMIT_EXCEEDED"
        await sender.cancel()
        async with sending(owner, MODEL):
            pass
