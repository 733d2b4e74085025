"""How uploads end: what is over is noted, its parts are removed, and nothing is left that nobody needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import acme
import models
import pytest
from blobhub_server import app
from blobhub_server.onnx import upload_upkeep
from blobhub_server.platform.blobs.object_collection import ObjectCollector
from calling import ask, outcome
from databases import collected, select
from model_uploads import (
    PART,
    STORES,
    collectors_at_rest,
    left_after_collecting,
    model_of,
    scorer,
    sending,
    sha256,
    store_objects,
    stored,
)
from served import Api, connected, served
from waiting import until
from wall_clock import WallClock

MODEL = model_of(2 * PART)


@pytest.fixture(autouse=True)
def collectors(monkeypatch: pytest.MonkeyPatch) -> list[ObjectCollector]:
    """The collectors of the servers that are started, which collect when they are told to."""
    return collectors_at_rest(monkeypatch)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    """The clock of servers, which look very often for what has ended."""
    made = WallClock()
    monkeypatch.setattr(app, "utc_now", made)
    monkeypatch.setattr(upload_upkeep, "LOOK_SECONDS", 0.05)
    return made


@pytest.fixture(params=STORES, autouse=True)
def object_store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of store that the server keeps objects in."""
    store_objects(request.param, request, monkeypatch)
    return request.param


@pytest.fixture
async def owner(tmp_path: Path, database_url: str, object_store: str, clock: WallClock) -> AsyncIterator[Api]:
    """A client that has an empty model blob."""
    async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
        await scorer(api)
        yield api


async def test_an_upload_expires_and_is_forgotten(owner: Api, clock: WallClock, collectors) -> None:
    async with sending(owner, MODEL) as sender:
        await sender.put_all()
        clock.ahead = timedelta(days=7)
        assert await sender.state() == "EXPIRED"
        assert await outcome(sender.complete()) == "UPLOAD_NOT_OPEN"
        assert await outcome(sender.sign(1)) == "UPLOAD_NOT_OPEN"
        assert await outcome(sender.cancel()) == "UPLOAD_NOT_OPEN"

        async def has_no_parts() -> bool:
            return await sender.parts() == []

        await until(has_no_parts)
        assert [upload.id for upload in (await ask(owner, "ListModelUploads", blob="acme/scorer")).model_uploads] == [
            sender.id
        ]
        assert not await stored(owner)
        clock.ahead = timedelta(days=15)

        async def is_forgotten() -> bool:
            return not (await ask(owner, "ListModelUploads", blob="acme/scorer")).model_uploads

        await until(is_forgotten)
        assert await left_after_collecting(collectors[0]) == (set(), [])


async def test_parts_that_come_after_the_end_are_collected(owner: Api, collectors) -> None:
    async with sending(owner, MODEL) as sender:
        signed = await sender.sign(*sender.numbers)
        await sender.put(1)
        await sender.cancel()

        async def has_no_parts() -> bool:
            return await sender.parts() == []

        await until(has_no_parts)
        assert (await sender.send(signed[1], sender.part(2))).status_code == 200
        assert await left_after_collecting(collectors[0]) == (set(), [])


async def test_what_is_open_or_completed_is_not_collected(owner: Api, collectors) -> None:
    async with sending(owner, MODEL) as sender, sending(owner, MODEL) as other:
        await other.put(1)
        await sender.put_all()
        assert await left_after_collecting(collectors[0]) == (set(), sorted([sender.id, other.id]))
        await sender.complete()
        assert await sender.ended() == "COMPLETED"
        objects, uploads = await left_after_collecting(collectors[0])
        assert sha256(MODEL) in objects
        assert uploads == [other.id]


async def test_what_failed_leaves_nothing(owner: Api, collectors) -> None:
    async with sending(owner, MODEL, sha256=sha256(b"")) as sender, sending(owner, MODEL, crc32c=1) as other:
        for each in (sender, other):
            await each.put_all()
            await each.complete()
        for each in (sender, other):
            assert await each.ended() == "FAILED"

        async def are_noted() -> bool:
            failed = await ask(owner, "ListModelUploads", blob="acme/scorer", state="MODEL_UPLOAD_STATE_FAILED")
            return len(failed.model_uploads) == 2 and await sender.parts() == [] == await other.parts()

        await until(are_noted)
        assert not await stored(owner)
        assert await left_after_collecting(collectors[0]) == (set(), [])


async def test_of_an_archive_the_model_alone_is_left(owner: Api, collectors) -> None:
    packed = models.archive(MODEL)
    async with sending(owner, packed, form="MODEL_FORM_TAR_GZ") as sender:
        await sender.put_all()
        await sender.complete()
        assert await sender.ended() == "COMPLETED"
    described = await models.describe(owner)
    objects, uploads = await left_after_collecting(collectors[0])
    assert uploads == []
    assert {artifact.digest for artifact in described.artifacts} < objects
    assert (described.digest, len(objects)) == (sha256(MODEL), 3)


async def test_a_published_draft_and_a_deleted_blob_leave_nothing(owner: Api, database_url: str, collectors) -> None:
    async with sending(owner, MODEL) as sender, sending(owner, MODEL) as other:
        for each in (sender, other):
            await each.put_all()
        await sender.complete()
        assert await sender.ended() == "COMPLETED"
        await owner.publish("acme/scorer")
        for call in (other.sign(1), other.complete()):
            assert await outcome(call) == "WRONG_PHASE"
        await acme.delete_blob(owner, "acme/scorer", cascade=True)
        assert await outcome(other.complete()) in ("PERMISSION_DENIED", "NOT_FOUND")
        await collected(database_url)
        assert await select(database_url, "SELECT count(*) FROM model_uploads") == [(0,)]
        assert await left_after_collecting(collectors[0]) == (set(), [])
