"""What every object store promises: local files, and Google Cloud Storage."""

from __future__ import annotations

import asyncio
import errno
import gc
import hashlib
import random
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import fake_google
import pytest
from blobhub_server.errors import StorageUnavailable
from blobhub_server.objects import block_writer, google, google_bucket, local, local_upload, outline
from blobhub_server.objects.contract import (
    DigestMismatch,
    ObjectNotFound,
    ObjectStore,
    ObjectTooLarge,
    PartMismatch,
    UploadPart,
)
from blobhub_server.objects.google import GoogleObjects
from blobhub_server.objects.local import LocalObjects
from blobhub_server.objects.local_upload import LocalUploads
from blobhub_server.objects.outline import BLOCK_BYTES
from hypothesis import given, settings
from hypothesis import strategies as st
from scale import SHARED_FIXTURES, scaled
from stores import Stores, put_part, read


@pytest.fixture(params=["local", "google"])
def stores(request, tmp_path: Path) -> Stores:
    client = request.getfixturevalue("google_client") if request.param == "google" else None
    return Stores(request.param, tmp_path, client)


@pytest.fixture
def store(stores: Stores) -> ObjectStore:
    return stores.make()


@settings(max_examples=scaled(30, least=10), deadline=None, suppress_health_check=SHARED_FIXTURES)
@given(data=st.binary(max_size=5000))
async def test_what_was_put_is_got_by_its_digest(store: ObjectStore, data: bytes) -> None:
    digest = await store.put(data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert await store.put(data) == digest
    assert await store.get(digest) == data
    assert await store.size(digest) == len(data)


@pytest.mark.parametrize("digest", ["0" * 64, "", "../../etc/passwd", "0" * 63 + "G", "A" * 64, "0" * 64 + "\n"])
async def test_what_is_not_there_is_not_found_and_no_name_becomes_a_path(store: ObjectStore, digest: str) -> None:
    with pytest.raises(ObjectNotFound):
        await store.size(digest)
    with pytest.raises(ObjectNotFound):
        await store.get(digest)


async def test_the_same_bytes_from_many_at_once_are_one_object(store: ObjectStore) -> None:
    data = random.Random(1).randbytes(1 << 20)
    (digest,) = set(await asyncio.gather(*(store.put(data) for _ in range(16))))
    assert await store.get(digest) == data


Range = tuple[int, int | None]
ENDS = ["commit", "expected", "other", "abort", "leave"]
WRITES = st.tuples(st.lists(st.binary(max_size=40), max_size=8), st.sampled_from(ENDS))
RANGES = st.tuples(st.integers(0, 220), st.one_of(st.none(), st.integers(0, 220)))


@settings(max_examples=scaled(100, least=10), deadline=None, suppress_health_check=SHARED_FIXTURES)
@given(writes=st.lists(WRITES, max_size=6), ranges=st.lists(RANGES, max_size=6))
async def test_what_is_committed_and_nothing_else_is_read_as_from_a_dictionary(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, writes: list[tuple[list[bytes], str]], ranges: list[Range]
) -> None:
    with monkeypatch.context() as patched:
        for module in (block_writer, google, local, local_upload, outline):
            patched.setattr(module, "BLOCK_BYTES", 32)
        store = stores.make()
        model: dict[str, bytes] = {}
        for pieces, end in writes:
            await write(store, model, pieces, end)
        for digest in {hashlib.sha256(b"".join(pieces)).hexdigest() for pieces, _ in writes} - model.keys():
            with pytest.raises(ObjectNotFound):
                await store.get(digest)
        for digest, data in model.items():
            assert await store.size(digest) == len(data)
            for offset, length in [(0, None), *ranges]:
                expected = data[offset:] if length is None else data[offset : offset + length]
                assert await read(store, digest, offset, length) == expected
        assert [stored.digest for stored in await store.page("", 100)] == sorted(model)
        assert await store.uploads("", 100) == []


async def write(store: ObjectStore, model: dict[str, bytes], pieces: list[bytes], end: str) -> None:
    """Write some pieces, and keep in the model what the store has to keep."""
    data = b"".join(pieces)
    digest = hashlib.sha256(data).hexdigest()
    async with store.write() as writer:
        for piece in pieces:
            await writer.append(piece)
        assert writer.size == len(data)
        if end == "other":
            with pytest.raises(DigestMismatch):
                await writer.commit("0" * 64)
        elif end == "abort":
            await writer.abort()
        elif end != "leave":
            assert await writer.commit(digest if end == "expected" else None) == digest
            model[digest] = data
        if end != "leave":
            with pytest.raises(RuntimeError):
                await writer.append(b"more")


async def test_a_range_outside_of_all_objects_is_refused(store: ObjectStore) -> None:
    digest = await store.put(b"some bytes")
    for offset, length in ((-1, None), (0, -1)):
        with pytest.raises(ValueError, match="range"):
            await read(store, digest, offset, length)


async def test_no_more_is_taken_than_the_writer_may_hold(store: ObjectStore) -> None:
    async with store.write(max_bytes=10) as writer:
        await writer.append(b"ten bytes!")
        with pytest.raises(ObjectTooLarge) as refused_with:
            await writer.append(b"!")
        assert refused_with.value.max_bytes == 10
        assert await store.get(await writer.commit()) == b"ten bytes!"


async def test_a_large_object_and_ranges_of_it_are_what_was_written(store: ObjectStore) -> None:
    data = random.Random(6).randbytes(11 * BLOCK_BYTES + 17)
    digest = await store.put(data)
    assert await store.get(digest) == data
    assert await store.size(digest) == len(data)
    for offset, length in [(BLOCK_BYTES - 1, 2), (9 * BLOCK_BYTES, None), (len(data), 5), (len(data) - 3, 9)]:
        assert await read(store, digest, offset, length) == data[offset:][:length]


async def test_a_store_is_probed_and_leaves_nothing(store: ObjectStore) -> None:
    await store.probe()
    assert await store.page("", 10) == []


# Uploads


async def put_parts(store: ObjectStore, upload_id: str, contents: Sequence[bytes]) -> list[UploadPart]:
    numbered = list(enumerate(contents, start=1))
    random.Random(7).shuffle(numbered)
    sent = [await put_part(store, upload_id, number, data) for number, data in numbered]
    return sorted(sent, key=lambda part: part.number)


@pytest.mark.parametrize("sizes", [[0], [5], [100, 7, 300], [BLOCK_BYTES, BLOCK_BYTES + 3, 5], [3] * 40])
async def test_parts_in_any_order_become_one_object_as_often_as_it_is_asked_for(
    store: ObjectStore, sizes: list[int]
) -> None:
    contents, upload_id = [random.Random(size).randbytes(size) for size in sizes], str(uuid4())
    parts = await put_parts(store, upload_id, contents)
    assert await store.parts(upload_id) == parts
    assert await store.page("", 10) == []
    whole = b"".join(contents)
    digest = hashlib.sha256(whole).hexdigest()
    for _ in range(2):
        assert await store.compose(upload_id, parts, expected=digest, max_bytes=len(whole)) == digest
        assert await store.get(digest) == whole
    await store.discard(upload_id)
    assert await store.parts(upload_id) == []
    assert await store.uploads("", 10) == []
    assert await store.get(digest) == whole


async def test_a_part_that_is_sent_again_replaces_the_former_one(store: ObjectStore) -> None:
    upload_id = str(uuid4())
    former = await put_part(store, upload_id, 2, b"former")
    latter = await put_part(store, upload_id, 2, b"the latter")
    first = await put_part(store, upload_id, 1, b"one, ")
    assert await store.parts(upload_id) == [first, latter]
    with pytest.raises(PartMismatch) as refused:
        await store.compose(upload_id, [first, former])
    assert refused.value.number == 2
    assert await store.get(await store.compose(upload_id, [first, latter])) == b"one, the latter"
    assert await store.get(await store.compose(upload_id, [latter])) == b"the latter"


async def test_what_is_not_there_is_composed_of_nothing(store: ObjectStore) -> None:
    upload_id = str(uuid4())
    part = await put_part(store, upload_id, 1, b"some bytes")
    other = UploadPart(number=7, size=part.size, etag=part.etag)
    for wrong in (other, UploadPart(number=1, size=9, etag=part.etag), UploadPart(number=1, size=part.size, etag="0" * 32)):
        with pytest.raises(PartMismatch):
            await store.compose(upload_id, [wrong])
    with pytest.raises(PartMismatch):
        await store.compose(str(uuid4()), [part])
    with pytest.raises(DigestMismatch):
        await store.compose(upload_id, [part], expected="0" * 64)
    with pytest.raises(ObjectTooLarge):
        await store.compose(upload_id, [part], max_bytes=9)
    assert await store.page("", 10) == []
    assert await store.compose(upload_id, []) == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("upload_id", ["", "..", "../sha256", "a/b", "0" * 36, "018F3E5A-7B1C-7DEF-8ABC-0123456789AB"])
async def test_no_name_of_an_upload_becomes_a_path(store: ObjectStore, upload_id: str) -> None:
    assert await store.parts(upload_id) == []
    await store.discard(upload_id)
    with pytest.raises(PartMismatch):
        await put_part(store, upload_id, 1, b"x")
    with pytest.raises(PartMismatch):
        await store.compose(upload_id, [UploadPart(number=1, size=1, etag="")])


@pytest.mark.parametrize("number", [-1, 0, 10_001])
async def test_no_number_of_a_part_becomes_another_path(store: ObjectStore, number: int) -> None:
    with pytest.raises(PartMismatch):
        await put_part(store, str(uuid4()), number, b"x")


async def test_uploads_are_listed_by_id(store: ObjectStore) -> None:
    ids = sorted(str(uuid4()) for _ in range(5))
    for upload_id in ids:
        await put_part(store, upload_id, 1, b"x")
    assert await store.uploads("", 3) == ids[:3]
    assert await store.uploads(ids[2], 3) == ids[3:]


async def test_a_part_that_is_sent_again_while_it_is_composed_is_another_one(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is kept under a digest that it does not have, and nothing is told as lost."""
    upload_id, former, latter = str(uuid4()), bytes(2 * BLOCK_BYTES), b"x" * (2 * BLOCK_BYTES)
    part = await put_part(store, upload_id, 1, former)
    hash_, read_ = GoogleObjects._hash, LocalUploads.read

    async def hash_meanwhile(*given: Any) -> outline.Outline:
        found = await hash_(*given)
        await put_part(store, upload_id, 1, latter)
        return found

    async def read_meanwhile(*given: Any) -> AsyncGenerator[bytes, None]:
        async for block in read_(*given):
            await put_part(store, upload_id, 1, latter)
            yield block

    with monkeypatch.context() as patched:
        patched.setattr(GoogleObjects, "_hash", hash_meanwhile)
        patched.setattr(LocalUploads, "read", read_meanwhile)
        with pytest.raises(PartMismatch) as refused:
            await store.compose(upload_id, [part])
    assert refused.value.number == 1
    for data in (former, latter):
        with pytest.raises(ObjectNotFound):
            await store.get(hashlib.sha256(data).hexdigest())
    assert await store.get(await store.compose(upload_id, await store.parts(upload_id))) == latter


# Deleting


async def test_objects_are_listed_by_digest_and_deleted_as_they_were_seen(store: ObjectStore) -> None:
    contents = {hashlib.sha256(data).hexdigest(): data for data in (bytes([n]) * 100 for n in range(7))}
    large = bytes(BLOCK_BYTES + 1)
    contents[hashlib.sha256(large).hexdigest()] = large
    for data in contents.values():
        await store.put(data)
    seen = [*await store.page("", 3)]
    while page := await store.page(seen[-1].digest, 3):
        seen += page
    assert [stored.digest for stored in seen] == sorted(contents)
    again = seen[2]
    await store.put(contents[again.digest])
    for stored in seen:
        assert await store.delete(stored) is (stored != again)
    assert [stored.digest for stored in await store.page("", 10)] == [again.digest]
    assert await store.get(again.digest) == contents[again.digest]


async def test_a_deletion_beside_many_writers_takes_nothing_from_them(store: ObjectStore) -> None:
    """Whoever has put bytes finds them, unless what was deleted had been seen after that."""
    data = bytes(BLOCK_BYTES + 1)
    digest = await store.put(data)
    for _ in range(scaled(40, least=5)):
        (seen,) = await store.page("", 10)
        await asyncio.gather(store.delete(seen), store.put(data), store.delete(seen))
        assert await store.get(digest) == data


# Faults


async def test_a_store_that_is_away_says_so_and_comes_back(google_client, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fake_google.google_objects(google_client, str(uuid4()))
    digest, upload_id = await store.put(b"some bytes"), str(uuid4())
    part = await put_part(store, upload_id, 1, b"a part")
    monkeypatch.setattr(google_bucket, "_RETRY", None)
    with fake_google.google_down():
        for work in (
            store.put(b"more"),
            store.put(bytes(3 * BLOCK_BYTES)),
            store.get(digest),
            store.size(digest),
            store.probe(),
            store.parts(upload_id),
            store.compose(upload_id, [part]),
            store.page("", 10),
        ):
            with pytest.raises(StorageUnavailable):
                await work
    assert await store.get(digest) == b"some bytes"
    assert [stored.digest for stored in await store.page("", 10)] == [digest]
    assert await store.uploads("", 10) == [upload_id]


async def test_what_was_broken_off_is_not_finished_later(google_client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's library closes an open file that is collected as garbage, which would make the object."""
    store = fake_google.google_objects(google_client, str(uuid4()))
    stream = store._bucket.open("uploads/lost/writing")
    stream.write(bytes(9 * BLOCK_BYTES))  # more than is sent at once, so the upload has begun
    with monkeypatch.context() as patched, pytest.raises(OSError, match="Connection aborted"):
        patched.setattr(fake_google.Proxy, "fault", staticmethod(lambda method, path: "cut"))
        store._bucket.abandon(stream)
    assert stream.closed
    del stream
    gc.collect()
    assert await store.uploads("", 10) == []


async def test_what_cannot_be_removed_is_swept_and_hides_no_other_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalObjects(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "no name can be removed")

    with monkeypatch.context() as patched, pytest.raises(DigestMismatch):
        patched.setattr(Path, "unlink", fail)
        async with store.write() as writer:
            await writer.append(b"some bytes")
            await writer.commit("0" * 64)
    assert len([*(tmp_path / "parts").iterdir()]) == 1
    await store.sweep()
    assert [*(tmp_path / "parts").iterdir()] == []
