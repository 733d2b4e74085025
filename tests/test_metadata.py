"""Metadata: records on blobs and revisions, what holds for a revision, and what does not depend on them."""

from __future__ import annotations

import asyncio
import math
import uuid

import flows
import grpc
import pytest
from acme import DRAFT
from blobhub.v1 import blob_pb2, metadata_pb2, organization_pb2, revision_pb2
from blobhub_client import get_value
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from blobhub_server.rpc.wire import from_value, to_value
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Value
from google.rpc import error_details_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from scale import SHARED_FIXTURES, scaled
from served import WORKFLOW, Api

BLOB = "acme/pipeline"

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
EXISTS = grpc.StatusCode.ALREADY_EXISTS


async def blob(api: Api, visibility: blob_pb2.Visibility = blob_pb2.VISIBILITY_PRIVATE) -> blob_pb2.Blob:
    """A workflow blob with one definition in its draft."""
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    request = blob_pb2.CreateBlobRequest(organization="acme", alias="pipeline", type=WORKFLOW, visibility=visibility)
    made = (await api.blobs.CreateBlob(request)).blob
    await api.put(flows.steps(2))
    return made


async def create(api: Api, target: str, key: str, value=None, description: str = "") -> metadata_pb2.MetadataRecord:
    request = metadata_pb2.CreateMetadataRequest(parent=target, key=key, value=to_value(value), description=description)
    return (await api.metadata.CreateMetadata(request)).record


async def get(api: Api, target: str, key: str) -> metadata_pb2.MetadataRecord:
    return (await api.metadata.GetMetadata(metadata_pb2.GetMetadataRequest(parent=target, key=key))).record


async def update(api: Api, target: str, key: str, *paths: str, **fields) -> metadata_pb2.MetadataRecord:
    mask = FieldMask(paths=paths) if paths else None
    request = metadata_pb2.UpdateMetadataRequest(parent=target, key=key, update_mask=mask, **fields)
    return (await api.metadata.UpdateMetadata(request)).record


async def listed(api: Api, target: str, prefix: str = "", size: int = 0) -> list[metadata_pb2.MetadataRecord]:
    """All pages of a list."""
    request = metadata_pb2.ListMetadataRequest(parent=target, key_prefix=prefix, page_size=size)
    records: list[metadata_pb2.MetadataRecord] = []
    while True:
        answer = await api.metadata.ListMetadata(request)
        assert len(answer.records) <= (size or 50)
        records += answer.records
        if not answer.next_page_token:
            return records
        request.page_token = answer.next_page_token


async def resolved(api: Api, revision: str = DRAFT, *, keys=(), prefix: str = "", size: int = 0):
    """All pages of what holds for a revision: (key, value, source) of each."""
    request = metadata_pb2.ResolveMetadataRequest(revision=revision, keys=keys, key_prefix=prefix, page_size=size)
    found = []
    while True:
        answer = await api.metadata.ResolveMetadata(request)
        assert len(answer.resolved) <= (size or 50)
        found += [(item.record.key, from_value(item.record.value), item.source) for item in answer.resolved]
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


async def events(api: Api) -> list[blob_pb2.WatchBlobResponse]:
    request = blob_pb2.WatchBlobRequest(blob=BLOB, replay_only=True)
    return [event async for message in api.blobs.WatchBlob(request) for event in message.events]


@pytest.mark.parametrize("on", ["blob", "blob id", "draft", "draft id"])
async def test_a_record_is_created_read_changed_and_deleted(api: Api, on: str) -> None:
    made = await blob(api)
    ids = {"blob": made.id, "blob id": made.id, "draft": made.default_revision_id, "draft id": made.default_revision_id}
    target = {"blob": BLOB, "draft": DRAFT}.get(on, ids[on])
    record = await create(api, target, "team/owner", {"name": "Ann", "floor": 3}, "who to ask")
    assert (record.parent_id, record.blob_id, record.description) == (ids[on], made.id, "who to ask")
    assert record.create_time == record.update_time
    assert await get(api, target, "team/owner") == record
    assert await listed(api, target) == [record]
    changed = await update(api, target, "team/owner", value=Value(string_value="Bob"))
    assert (changed.value.string_value, changed.description) == ("Bob", "who to ask")
    assert changed.etag != record.etag
    assert changed.create_time == record.create_time
    assert await get(api, target, "team/owner") == changed
    await api.metadata.DeleteMetadata(metadata_pb2.DeleteMetadataRequest(parent=target, key="team/owner"))
    await expect_refusal(get(api, target, "team/owner"), NOT_FOUND, "NOT_FOUND")
    assert await listed(api, target) == []
    told = [event for event in await events(api) if event.type.startswith("metadata_")]
    assert [event.type for event in told] == ["metadata_created", "metadata_updated", "metadata_deleted"]
    assert (told[0].metadata_created.parent_id, told[0].metadata_created.etag) == (ids[on], record.etag)
    assert (told[1].metadata_updated.key, told[1].metadata_updated.etag) == ("team/owner", changed.etag)
    assert (told[2].metadata_deleted.parent_id, told[2].metadata_deleted.key) == (ids[on], "team/owner")


async def test_a_target_has_one_record_of_a_key(api: Api) -> None:
    await blob(api)
    tried = await asyncio.gather(*(create(api, BLOB, "key", number) for number in range(8)), return_exceptions=True)
    assert sum(isinstance(item, metadata_pb2.MetadataRecord) for item in tried) == 1
    await expect_refusal(create(api, BLOB, "key"), EXISTS, "ALREADY_EXISTS")
    await create(api, DRAFT, "key")
    for target in (BLOB, DRAFT):
        await expect_refusal(update(api, target, "other", description="x"), NOT_FOUND, "NOT_FOUND")
        delete = metadata_pb2.DeleteMetadataRequest(parent=target, key="other")
        await expect_refusal(api.metadata.DeleteMetadata(delete), NOT_FOUND, "NOT_FOUND")


@pytest.mark.either_database
@pytest.mark.parametrize("key", ["", "white space", "é", "a" * 257, "a:b", "line\n"])
async def test_a_key_is_plain(api: Api, key: str) -> None:
    await blob(api)
    await expect_refusal(create(api, BLOB, key), INVALID, "INVALID_REQUEST")
    assert (await create(api, BLOB, "Az09._/-" + "a" * 248)).key.endswith("aaa")


@pytest.mark.either_database
async def test_a_stale_etag_is_told_the_current_one(api: Api) -> None:
    await blob(api)
    first = await create(api, BLOB, "key", 1)
    second = await update(api, BLOB, "key", etag=first.etag, value=to_value(2))
    stale = [
        update(api, BLOB, "key", etag=first.etag, value=to_value(3)),
        api.metadata.DeleteMetadata(metadata_pb2.DeleteMetadataRequest(parent=BLOB, key="key", etag=first.etag)),
    ]
    for call in stale:
        info = error_details_pb2.ErrorInfo()
        assert unpack(await expect_refusal(call, grpc.StatusCode.ABORTED, "STALE_ETAG"), info)
        assert info.metadata["etag"] == second.etag
    assert await get(api, BLOB, "key") == second
    await api.metadata.DeleteMetadata(metadata_pb2.DeleteMetadataRequest(parent=BLOB, key="key", etag=second.etag))


async def test_concurrent_writers_with_etags_lose_no_update(api: Api) -> None:
    await blob(api)
    await create(api, BLOB, "count", 0)

    async def add_one() -> None:
        while True:
            seen = await get(api, BLOB, "count")
            change = update(api, BLOB, "count", etag=seen.etag, value=to_value(from_value(seen.value) + 1))
            (done,) = await asyncio.gather(change, return_exceptions=True)
            if isinstance(done, metadata_pb2.MetadataRecord):
                return
            assert done.code() is grpc.StatusCode.ABORTED

    await asyncio.gather(*(add_one() for _ in range(12)))
    assert from_value((await get(api, BLOB, "count")).value) == 12


@pytest.mark.either_database
async def test_an_update_changes_what_its_mask_names(api: Api) -> None:
    await blob(api)
    await create(api, BLOB, "key", {"a": 1}, "words")
    fields = {"value": to_value([2]), "description": "other"}

    async def after(*paths: str, **given) -> tuple[object, str]:
        record = await update(api, BLOB, "key", *paths, **given)
        return from_value(record.value), record.description

    assert await after("value", **fields) == ([2], "words")
    assert await after("description", **fields) == ([2], "other")
    assert await after(description="empty mask") == ([2], "empty mask")
    assert await after(value=to_value(None)) == (None, "empty mask")
    assert await after(value=to_value(0)) == (0, "empty mask")
    assert await after("value") == (None, "empty mask")
    assert await after("description") == (None, "")
    assert await after("value", "description", **fields) == ([2], "other")
    await expect_refusal(update(api, BLOB, "key", "etag"), INVALID, "INVALID_REQUEST")
    await expect_refusal(update(api, BLOB, "key", "value.number_value", **fields), INVALID, "INVALID_VALUE")


async def test_a_request_made_twice_is_done_once(api: Api) -> None:
    await blob(api)
    request = metadata_pb2.CreateMetadataRequest(parent=BLOB, key="key", value=to_value(1), request_id=str(uuid.uuid4()))
    first = await api.metadata.CreateMetadata(request)
    assert await api.metadata.CreateMetadata(request) == first
    request.value.number_value = 2
    await expect_refusal(api.metadata.CreateMetadata(request), EXISTS, "REQUEST_ID_REUSED")


@pytest.mark.either_database
async def test_a_target_has_at_most_256_records(api: Api) -> None:
    await blob(api)
    tried = await asyncio.gather(*(create(api, BLOB, f"key-{n:03}") for n in range(270)), return_exceptions=True)
    assert sum(isinstance(item, metadata_pb2.MetadataRecord) for item in tried) == 256
    quota, info = error_details_pb2.QuotaFailure(), error_details_pb2.ErrorInfo()
    error = await expect_refusal(create(api, BLOB, "more"), grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    assert unpack(error, quota)
    assert unpack(error, info)
    assert info.metadata["value"] == "256"
    assert len(await listed(api, BLOB)) == 256
    await create(api, DRAFT, "another-target")
    await api.metadata.DeleteMetadata(metadata_pb2.DeleteMetadataRequest(parent=BLOB, key=(await listed(api, BLOB))[0].key))
    await create(api, BLOB, "more")


@pytest.mark.either_database
async def test_a_value_has_at_most_64_kib_and_24_levels(api: Api) -> None:
    await blob(api)
    most = 64 * 1024 - 2
    for text, size in (("a", most), ("é", most // 2)):
        await create(api, BLOB, f"full-{ord(text)}", text * size)
        await expect_refusal(create(api, BLOB, "more", text * (size + 1)), INVALID, "INVALID_VALUE")
        larger = update(api, BLOB, f"full-{ord(text)}", value=to_value(text * (size + 1)))
        await expect_refusal(larger, INVALID, "INVALID_VALUE")
    await expect_refusal(create(api, BLOB, "number", math.nan), INVALID, "INVALID_VALUE")
    await expect_refusal(create(api, BLOB, "number", {"a": [math.inf]}), INVALID, "INVALID_VALUE")
    deep: object = {}
    for _ in range(23):
        deep = {"a": deep}
    await create(api, DRAFT, "deep", deep)
    await expect_refusal(create(api, DRAFT, "deeper", [deep]), INVALID, "INVALID_VALUE")
    assert from_value((await listed(api, DRAFT))[0].value) == deep
    assert await resolved(api, keys=["deep"]) == [("deep", deep, metadata_pb2.METADATA_SOURCE_REVISION)]


async def once(api: Api) -> None:
    """The blob, with a record, for tests whose examples share a server."""
    found = await api.organizations.ListOrganizations(organization_pb2.ListOrganizationsRequest())
    if not found.organizations:
        await blob(api)
        await create(api, BLOB, "key")


keys = st.text("aB.-/_", min_size=1, max_size=3)


@settings(max_examples=scaled(25, least=8), deadline=None, suppress_health_check=SHARED_FIXTURES)
@given(
    of_blob=st.dictionaries(keys, st.integers(0, 9), max_size=12),
    of_revision=st.dictionaries(keys, st.integers(10, 19), max_size=12),
    asked=st.lists(keys, max_size=6),
    prefix=st.text("aB.-/_", max_size=2),
    size=st.integers(1, 7),
)
async def test_what_holds_is_the_revisions_own_else_the_blobs(api: Api, of_blob, of_revision, asked, prefix, size) -> None:
    await once(api)
    for target, wanted in ((BLOB, of_blob), (DRAFT, of_revision)):
        for record in await listed(api, target):
            await api.metadata.DeleteMetadata(metadata_pb2.DeleteMetadataRequest(parent=target, key=record.key))
        for key, value in wanted.items():
            await create(api, target, key, value)
    holds = {key: (value, metadata_pb2.METADATA_SOURCE_BLOB) for key, value in of_blob.items()}
    holds |= {key: (value, metadata_pb2.METADATA_SOURCE_REVISION) for key, value in of_revision.items()}
    expected = [(key, *holds[key]) for key in sorted(holds)]
    assert await resolved(api) == expected
    assert await resolved(api, size=size) == expected
    assert await resolved(api, prefix=prefix, size=size) == [item for item in expected if item[0].startswith(prefix)]
    among = [item for item in expected if item[0] in (asked or holds)]
    assert await resolved(api, keys=asked, size=size) == among
    assert await resolved(api, keys=asked, prefix=prefix) == [item for item in among if item[0].startswith(prefix)]
    own = [record.key for record in await listed(api, DRAFT, prefix, size)]
    assert own == sorted(key for key in of_revision if key.startswith(prefix))


@pytest.mark.either_database
async def test_a_token_is_good_for_its_own_list_alone(api: Api) -> None:
    await blob(api)
    for number in range(3):
        await create(api, BLOB, f"key-{number}")
    token = (await api.metadata.ListMetadata(metadata_pb2.ListMetadataRequest(parent=BLOB, page_size=1))).next_page_token
    for request in (
        metadata_pb2.ListMetadataRequest(parent=DRAFT, page_token=token),
        metadata_pb2.ListMetadataRequest(parent=BLOB, key_prefix="k", page_token=token),
    ):
        await expect_refusal(api.metadata.ListMetadata(request), INVALID, "INVALID_PAGE_TOKEN")
    resolve = metadata_pb2.ResolveMetadataRequest(revision=DRAFT, page_token=token)
    await expect_refusal(api.metadata.ResolveMetadata(resolve), INVALID, "INVALID_PAGE_TOKEN")


async def test_pages_of_large_values_fit_a_message(api: Api) -> None:
    """Many values are there as text alone."""
    await blob(api)
    values = ["x" * 65_000, [0] * 4_000]
    names = [f"key-{number:03}" for number in range(24)]
    for number, name in enumerate(names):
        await create(api, BLOB, name, values[number % 2])
    request = metadata_pb2.ListMetadataRequest(parent=BLOB, page_size=1000)
    resolve = metadata_pb2.ResolveMetadataRequest(revision=DRAFT, page_size=1000)
    seen, also_seen = [], []
    while True:
        answer = await api.metadata.ListMetadata(request)
        other = await api.metadata.ResolveMetadata(resolve)
        assert max(answer.ByteSize(), other.ByteSize()) < 4 << 20
        seen += [(record.key, get_value(record)) for record in answer.records]
        also_seen += [(item.record.key, get_value(item.record)) for item in other.resolved]
        request.page_token, resolve.page_token = answer.next_page_token, other.next_page_token
        if not answer.next_page_token:
            break
    assert request.page_token == ""
    assert not other.next_page_token
    assert seen == also_seen == [(name, values[number % 2]) for number, name in enumerate(names)]


async def test_inserts_while_paging_neither_skip_nor_repeat(api: Api) -> None:
    await blob(api)
    for number in range(0, 20, 2):
        await create(api, BLOB, f"key-{number:02}")
    request = metadata_pb2.ListMetadataRequest(parent=BLOB, page_size=3)
    seen: list[str] = []
    for number in range(1, 20, 2):
        answer = await api.metadata.ListMetadata(request)
        seen += [record.key for record in answer.records]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
        await create(api, BLOB, f"key-{number:02}")
    assert seen == sorted(set(seen))
    assert {f"key-{number:02}" for number in range(0, 20, 2)} <= set(seen)


@pytest.mark.either_database
async def test_frozen_revisions_take_metadata_and_keep_their_digest(api: Api) -> None:
    await blob(api)
    await create(api, DRAFT, "state", "draft")
    snapshot = await api.publish()
    await update(api, snapshot.id, "state", value=to_value("published"))
    await create(api, f"{BLOB}@1", "quality", 0.9)
    now = await api.revisions.GetRevision(revision_pb2.GetRevisionRequest(revision=f"{BLOB}@1"))
    assert now.revision == snapshot
    assert [key for key, _, _ in await resolved(api, f"{BLOB}@1")] == ["quality", "state"]
    draft = await api.revisions.CreateRevision(revision_pb2.CreateRevisionRequest(blob=BLOB))
    assert await resolved(api, draft.revision.id) == []
    await create(api, draft.revision.id, "other", 1)
    again = await api.revisions.CommitRevision(revision_pb2.CommitRevisionRequest(revision=draft.revision.id))
    assert again.revision.digest == snapshot.digest


async def test_a_discarded_revision_takes_its_records_along(api: Api, server) -> None:
    await blob(api)
    await api.publish()
    draft = (await api.revisions.CreateRevision(revision_pb2.CreateRevisionRequest(blob=BLOB))).revision
    await create(api, draft.id, "key")
    await create(api, BLOB, "kept")
    await api.revisions.DiscardRevision(revision_pb2.DiscardRevisionRequest(revision=draft.id))
    await expect_refusal(listed(api, f"{BLOB}@{draft.id}"), NOT_FOUND, "NOT_FOUND")
    assert [record.key for record in await listed(api, BLOB)] == ["kept"]
    await api.blobs.DeleteBlob(blob_pb2.DeleteBlobRequest(blob=BLOB))
    await expect_refusal(listed(api, BLOB), NOT_FOUND, "NOT_FOUND")


@pytest.mark.either_database
async def test_everybody_reads_the_metadata_of_a_public_blob(api: Api, anonymous: Api) -> None:
    await blob(api, blob_pb2.VISIBILITY_PUBLIC)
    record = await create(api, BLOB, "key", [1, 2])
    assert await get(anonymous, BLOB, "key") == record
    assert await listed(anonymous, BLOB) == [record]
    await api.publish()
    assert await resolved(anonymous, BLOB) == [("key", [1, 2], metadata_pb2.METADATA_SOURCE_BLOB)]
    unauthenticated = grpc.StatusCode.UNAUTHENTICATED
    await expect_refusal(create(anonymous, BLOB, "other"), unauthenticated, "UNAUTHENTICATED")
    await expect_refusal(update(anonymous, BLOB, "key", description="x"), unauthenticated, "UNAUTHENTICATED")


@pytest.mark.either_database
async def test_a_private_blob_shows_nothing_to_others(api: Api, anonymous: Api) -> None:
    await blob(api)
    await create(api, BLOB, "key")
    said = set()
    for target in (BLOB, "acme/other"):
        error = await expect_refusal(get(anonymous, target, "key"), grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        said.add((error.details(), str(error.trailing_metadata())))
    assert len(said) == 1
