"""Blobs: created, found, listed, changed, renamed and deleted; and the log of what happens to them."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import acme
import flows
import grpc
from acme import ADMIN, PRIVATE, PUBLIC, READ, WRITE, aliases
from blobhub.v1 import (
    api_key_pb2,
    blob_event_pb2,
    blob_pb2,
    credential_pb2,
    execution_pb2,
    metadata_pb2,
    organization_pb2,
    revision_pb2,
    session_pb2,
)
from blobhub_client import page
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from google.rpc import error_details_pb2
from served import WORKFLOW, Api, Served, connected, served

DENIED = grpc.StatusCode.PERMISSION_DENIED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
EXISTS = grpc.StatusCode.ALREADY_EXISTS
INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

NOTES = "stranger.notes"


def metadata_of(error: grpc.aio.AioRpcError) -> dict[str, str]:
    info = error_details_pb2.ErrorInfo()
    assert unpack(error, info)
    return dict(info.metadata)


async def listed(api: Api, organization: str = "acme", **fields) -> list[str]:
    return aliases((await api.blobs.ListBlobs(blob_pb2.ListBlobsRequest(organization=organization, **fields))).blobs)


async def events(api: Api, reference: str = "acme/pipeline", after_sequence: int = 0) -> list[blob_event_pb2.BlobEvent]:
    """What is in a blob's log after a sequence."""
    request = blob_pb2.WatchBlobRequest(blob=reference, after_sequence=after_sequence, replay_only=True)
    return [event async for batch in api.blobs.WatchBlob(request) for event in batch.events]


async def test_a_blob_begins_with_an_empty_draft_that_is_its_default_revision(api: Api) -> None:
    organization = await acme.organization(api)
    request = blob_pb2.CreateBlobRequest(organization="acme", alias="pipeline", type=WORKFLOW, description="what it is")
    answer = await api.blobs.CreateBlob(request)
    blob, draft = answer.blob, answer.revision
    assert (blob.alias, blob.organization_id) == ("pipeline", organization.id)
    assert (blob.type, blob.description) == (WORKFLOW, "what it is")
    assert (blob.visibility, blob.first_sequence, blob.last_sequence) == (blob_pb2.VISIBILITY_PRIVATE, 1, 1)
    assert blob.default_revision_id == draft.id
    assert (draft.phase, draft.base_revision_id, draft.digest) == (revision_pb2.REVISION_PHASE_DRAFT, "", "")
    assert await acme.get_blob(api) == await acme.get_blob(api, blob.id) == blob
    assert await acme.get_blob(api, f"{organization.id}/pipeline") == blob
    for reference in ("acme/pipeline", "acme/pipeline@default", "acme/pipeline@draft", f"{blob.id}@draft", draft.id):
        assert await acme.get_revision(api, reference) == draft


async def test_what_a_blob_cannot_be_made_of_is_refused(api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    await expect_refusal(acme.blob(api, "acme/other", type_="no.such"), INVALID, "UNKNOWN_BLOB_TYPE")
    await expect_refusal(acme.blob(api), EXISTS, "ALREADY_EXISTS")
    await expect_refusal(acme.blob(api, "no-such/pipeline"), NOT_FOUND, "NOT_FOUND")
    for alias in ("", "A", "a" * 64, str(uuid.uuid4())):
        await expect_refusal(acme.blob(api, f"acme/{alias}"), INVALID, "INVALID_REQUEST")
    await acme.organization(api, "other")
    assert await acme.blob(api, "other/pipeline"), "aliases are unique within an organization"


async def test_blobs_are_made_by_writers_and_public_ones_by_admins_alone(server: Served, api: Api, anonymous: Api) -> None:
    await acme.organization(api)
    async with acme.person(server, api, "ann", ("acme", WRITE)) as writer:
        await acme.blob(writer, "acme/private", visibility=PRIVATE)
        await expect_refusal(acme.blob(writer, "acme/public", visibility=PUBLIC), DENIED, "PERMISSION_DENIED")
        await expect_refusal(acme.update_blob(writer, "acme/private", visibility=PUBLIC), DENIED, "PERMISSION_DENIED")
    async with connected(server.address, (await acme.key(api, "acme", WRITE)).key) as scoped:
        await acme.blob(scoped, "acme/by-key")
        await expect_refusal(acme.blob(scoped, "acme/public", visibility=PUBLIC), DENIED, "PERMISSION_DENIED")
    async with acme.person(server, api, "bob", ("acme", READ)) as reader:
        await expect_refusal(acme.blob(reader, "acme/mine"), DENIED, "PERMISSION_DENIED")
    await expect_refusal(acme.blob(anonymous, "acme/mine"), UNAUTHENTICATED, "UNAUTHENTICATED")
    made = await acme.blob(api, "acme/public", visibility=PUBLIC)
    assert made.visibility == blob_pb2.VISIBILITY_PUBLIC
    made.default_revision_id = ""  # its only revision is a draft
    assert await acme.get_blob(anonymous, "acme/public") == made
    await expect_refusal(acme.get_blob(anonymous, "acme/private"), UNAUTHENTICATED, "UNAUTHENTICATED")


async def test_the_blobs_of_a_public_organization_are_listed_as_far_as_one_may_see_them(
    server: Served, api: Api, anonymous: Api
) -> None:
    await acme.organization(api, visibility=PUBLIC)
    for alias in ("private", "mine", "public"):
        await acme.blob(api, f"acme/{alias}", visibility=PUBLIC if alias == "public" else PRIVATE)
    assert await listed(api) == ["private", "mine", "public"]
    assert await listed(anonymous) == ["public"]
    async with (
        acme.person(server, api, "ann", ("acme/mine", READ)) as of_a_blob,
        acme.person(server, api, "bob", ("acme", READ)) as member,
        connected(server.address, (await acme.key(api, "acme/mine")).key) as key_of_a_blob,
    ):
        assert await listed(of_a_blob) == await listed(key_of_a_blob) == ["mine", "public"]
        assert await listed(of_a_blob, visibility=PRIVATE) == ["mine"]
        assert await listed(member) == ["private", "mine", "public"]
        token = (
            await of_a_blob.blobs.ListBlobs(blob_pb2.ListBlobsRequest(organization="acme", page_size=1))
        ).next_page_token
        await expect_refusal(listed(anonymous, page_size=1, page_token=token), INVALID, "INVALID_PAGE_TOKEN")
        hide = organization_pb2.UpdateOrganizationRequest(organization="acme", visibility=PRIVATE)
        await api.organizations.UpdateOrganization(hide)
        await expect_refusal(listed(of_a_blob), DENIED, "PERMISSION_DENIED")
        await expect_refusal(listed(anonymous), UNAUTHENTICATED, "UNAUTHENTICATED")
        assert await acme.get_blob(anonymous, "acme/public"), "a public blob is public wherever it is"


async def test_blobs_are_listed_by_type_visibility_prefix_and_order(api: Api) -> None:
    await acme.organization(api)
    for alias, type_, visibility in (
        ("b-2", WORKFLOW, PRIVATE),
        ("a", NOTES, PUBLIC),
        ("b-1", WORKFLOW, PUBLIC),
        ("b", NOTES, PRIVATE),
    ):
        await acme.blob(api, f"acme/{alias}", type_, visibility=visibility)
    await acme.update_blob(api, "acme/b-2", description="changed last")
    assert await listed(api) == ["b-2", "a", "b-1", "b"]
    assert await listed(api, type=NOTES) == ["a", "b"]
    assert await listed(api, type="no.such") == []
    assert await listed(api, visibility=PUBLIC, order_by="create_time desc") == ["b-1", "a"]
    assert await listed(api, alias_prefix="b") == ["b", "b-1", "b-2"]
    assert await listed(api, alias_prefix="b-", order_by="alias desc") == ["b-2", "b-1"]
    assert await listed(api, order_by="update_time") == ["a", "b-1", "b", "b-2"]
    for order_by in ("create_time", "create_time desc", "update_time", "update_time desc", "alias", "alias desc"):
        request = blob_pb2.ListBlobsRequest(organization="acme", order_by=order_by, page_size=1)
        assert aliases([blob async for blob in page(api.blobs.ListBlobs, request)]) == await listed(api, order_by=order_by)
    await expect_refusal(listed(api, order_by="type"), INVALID, "INVALID_REQUEST")


async def test_an_update_changes_what_its_mask_names_and_moves_the_etag(api: Api) -> None:
    await acme.organization(api)
    before = await acme.blob(api, description="old")
    values = {"description": "new", "visibility": PUBLIC, "alias": "ignored"}
    after = await acme.update_blob(api, update_mask={"paths": ["visibility"]}, **values)
    assert (after.alias, after.description, after.visibility) == ("pipeline", "old", blob_pb2.VISIBILITY_PUBLIC)
    assert after.etag != before.etag
    assert after.update_time.ToNanoseconds() > before.update_time.ToNanoseconds()
    assert after.last_sequence == before.last_sequence + 1
    for stale in (acme.update_blob(api, description="x", etag=before.etag), acme.delete_blob(api, etag=before.etag)):
        error = await expect_refusal(stale, grpc.StatusCode.ABORTED, "STALE_ETAG")
        assert metadata_of(error)["etag"] == after.etag
    assert await acme.get_blob(api) == after
    assert (await acme.update_blob(api, update_mask={"paths": ["description"]}, etag=after.etag)).description == ""
    left = await acme.update_blob(api, update_mask={"paths": ["alias", "visibility"]})
    assert (left.alias, left.visibility) == ("pipeline", blob_pb2.VISIBILITY_PUBLIC)
    await expect_refusal(acme.update_blob(api, update_mask={"paths": ["type"]}), INVALID, "INVALID_REQUEST")


async def test_a_blob_is_renamed_shown_and_deleted_by_admins_alone(server: Served, api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    async with (
        acme.person(server, api, "ann", ("acme", WRITE)) as writer,
        acme.person(server, api, "bob", ("acme/pipeline", ADMIN)) as admin,
    ):
        for call in (
            acme.update_blob(writer, description="ours", alias="ours"),
            acme.update_blob(writer, visibility=PUBLIC),
            acme.delete_blob(writer),
        ):
            await expect_refusal(call, DENIED, "PERMISSION_DENIED")
        assert (await acme.update_blob(writer, description="ours", default_revision="draft")).description == "ours"
        assert (await acme.update_blob(admin, alias="ours")).alias == "ours"
        await acme.delete_blob(admin, "acme/ours")


async def test_a_renamed_blob_is_told_by_its_alias_of_today(api: Api) -> None:
    await acme.organization(api)
    blob = await acme.blob(api)
    await acme.update_blob(api, alias="flow")
    for call, today in (
        (acme.get_blob(api), "acme/flow"),
        (acme.get_blob(api, f"{blob.organization_id}/pipeline"), "acme/flow"),
        (acme.delete_blob(api), "acme/flow"),
        (acme.get_revision(api, "acme/pipeline@draft"), "acme/flow@draft"),
        (events(api), "acme/flow"),
    ):
        error = await expect_refusal(call, NOT_FOUND, "RENAMED")
        assert metadata_of(error) == {"alias": today}
    assert (await acme.get_blob(api, "acme/flow")).id == blob.id


async def test_an_old_alias_is_kept_for_its_blob_until_that_is_deleted(api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    await acme.blob(api, "acme/other")
    await acme.update_blob(api, alias="flow")
    for take in (acme.blob(api), acme.update_blob(api, "acme/other", alias="pipeline")):
        await expect_refusal(take, EXISTS, "ALREADY_EXISTS")
    assert (await acme.update_blob(api, "acme/flow", alias="pipeline")).alias == "pipeline"
    await expect_refusal(acme.get_blob(api, "acme/flow"), NOT_FOUND, "RENAMED")
    await acme.delete_blob(api)
    await expect_refusal(acme.get_blob(api, "acme/flow"), NOT_FOUND, "NOT_FOUND")
    for alias in ("pipeline", "flow"):
        await acme.blob(api, f"acme/{alias}")


async def test_of_two_who_want_an_alias_at_the_same_time_one_gets_it(api: Api) -> None:
    await acme.organization(api)
    for alias in ("one", "two"):
        await acme.blob(api, f"acme/{alias}")
    wanted = [acme.update_blob(api, f"acme/{alias}", alias="best") for alias in ("one", "two")]
    answers = await asyncio.gather(*wanted, acme.blob(api, "acme/best"), return_exceptions=True)
    assert sum(isinstance(answer, blob_pb2.Blob) for answer in answers) == 1
    assert len(await listed(api, alias_prefix="best")) == 1


async def test_a_blob_in_use_says_by_what_and_goes_by_a_cascade_alone(api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    await api.put(flows.delay(60))
    session = await acme.session(api, "acme/pipeline@draft")
    request = execution_pb2.StartExecutionRequest(session=session.id, spec={"definition": "workflow"})
    await api.executions.StartExecution(request)
    error = await expect_refusal(acme.delete_blob(api), PRECONDITION, "NOT_EMPTY")
    assert metadata_of(error) == {"holds": "1 open sessions, 1 running executions"}
    await acme.delete_blob(api, cascade=True)
    gone = api.sessions.GetSession(session_pb2.GetSessionRequest(session=session.id))
    await expect_refusal(gone, NOT_FOUND, "NOT_FOUND")


async def test_a_blob_goes_with_all_that_is_in_it_and_a_closed_session_does_not_keep_it(api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    await api.put(flows.steps(2))
    snapshot = await api.publish()
    session = await acme.session(api, snapshot.id)
    await api.sessions.CloseSession(session_pb2.CloseSessionRequest(session=session.id))
    for target in ("acme/pipeline", "acme/pipeline@1"):
        record = metadata_pb2.CreateMetadataRequest(parent=target, key="key", value={"number_value": 1})
        await api.metadata.CreateMetadata(record)
    secret = credential_pb2.CreateCredentialRequest(parent="acme/pipeline", alias="c", type="test", body={"user": "nobody"})
    credential = (await api.credentials.CreateCredential(secret)).credential
    await acme.user(api, "ann")
    await acme.member(api, "acme/pipeline", "ann")
    key = (await acme.key(api, "acme/pipeline")).api_key
    request = blob_pb2.DeleteBlobRequest(blob="acme/pipeline", request_id=str(uuid.uuid4()))
    answer = await api.blobs.DeleteBlob(request)
    assert await api.blobs.DeleteBlob(request) == answer
    assert await listed(api) == []
    for call in (
        acme.get_blob(api, session.blob_id),
        acme.get_revision(api, snapshot.id),
        api.sessions.GetSession(session_pb2.GetSessionRequest(session=session.id)),
        api.credentials.GetCredential(credential_pb2.GetCredentialRequest(credential=credential.id)),
        api.api_keys.GetApiKey(api_key_pb2.GetApiKeyRequest(api_key=key.id)),
        acme.entries(api, session.blob_id),
    ):
        await expect_refusal(call, NOT_FOUND, "NOT_FOUND")
    deleted = [entry for entry in await acme.entries(api, "acme") if entry.method.endswith("/DeleteBlob")]
    assert [entry.blob_id for entry in deleted] == [session.blob_id]
    await acme.delete_organization(api)


async def life(api: Api) -> list[str]:
    """Let everything happen to a blob that there is an event for; return the types in that order."""
    await acme.organization(api)
    await acme.blob(api)
    await acme.update_blob(api, description="what it is", visibility=PUBLIC)
    await api.put(flows.steps(2))
    update = revision_pb2.UpdateRevisionRequest(revision="acme/pipeline@draft", comment="first")
    await api.revisions.UpdateRevision(update)
    first = await api.publish()
    branch = revision_pb2.CreateRevisionRequest(blob="acme/pipeline")
    second = (await api.revisions.CreateRevision(branch)).revision
    third = (await api.revisions.CreateRevision(branch)).revision
    await api.revisions.CommitRevision(revision_pb2.CommitRevisionRequest(revision=second.id))
    await acme.update_blob(api, default_revision=second.id)
    await api.revisions.PublishRevision(revision_pb2.PublishRevisionRequest(revision=second.id))
    await api.revisions.DiscardRevision(revision_pb2.DiscardRevisionRequest(revision=third.id))
    for target in ("acme/pipeline", first.id):
        at = {"parent": target, "key": "owner"}
        await api.metadata.CreateMetadata(metadata_pb2.CreateMetadataRequest(**at, value={"string_value": "ann"}))
        await api.metadata.UpdateMetadata(metadata_pb2.UpdateMetadataRequest(**at, value={"string_value": "bob"}))
        await api.metadata.DeleteMetadata(metadata_pb2.DeleteMetadataRequest(**at))
    return (Path(__file__).parent / "golden" / "blob_events.txt").read_text().split()


async def test_everything_that_happens_to_a_blob_is_in_its_log(api: Api) -> None:
    expected = await life(api)
    found = await events(api)
    assert [event.type for event in found] == expected
    payloads = blob_event_pb2.BlobEvent.DESCRIPTOR.oneofs_by_name["payload"].fields
    assert set(expected) == {field.name for field in payloads}, "every type of event is in this life"
    blob = await acme.get_blob(api)
    assert [event.sequence for event in found] == list(range(1, blob.last_sequence + 1))
    assert {event.blob_id for event in found} == {blob.id}
    assert [event.WhichOneof("payload") for event in found] == expected
    assert len({event.id for event in found}) == len(found)


async def test_events_carry_what_was_then(api: Api) -> None:
    await life(api)
    by_type = {event.type: event for event in await events(api)}
    blob = await acme.get_blob(api)
    created = by_type["blob_created"].blob_created
    assert (created.alias, created.revision.phase) == ("pipeline", revision_pb2.REVISION_PHASE_DRAFT)
    assert (by_type["blob_updated"].blob_updated.alias, by_type["blob_updated"].blob_updated.public) == ("pipeline", True)
    assert by_type["revision_updated"].revision_updated.revision.comment == "first"
    published = by_type["revision_published"].revision_published.revision
    assert published == await acme.get_revision(api, "acme/pipeline@2")
    committed = by_type["revision_committed"].revision_committed.revision
    assert (committed.id, committed.phase) == (published.id, revision_pb2.REVISION_PHASE_COMMIT)
    assert by_type["default_revision_changed"].default_revision_changed.revision_id == blob.default_revision_id
    assert by_type["metadata_updated"].metadata_updated.key == "owner"
    assert by_type["metadata_deleted"].metadata_deleted.parent_id == created.revision.id


async def test_a_watch_resumes_after_any_sequence(api: Api) -> None:
    await life(api)
    whole = await events(api)
    for after in range(len(whole) + 1):
        assert await events(api, after_sequence=after) == whole[after:]
    error = await expect_refusal(
        events(api, after_sequence=len(whole) + 1), grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE"
    )
    assert metadata_of(error) == {"first_sequence": "1", "last_sequence": str(len(whole))}
    await expect_refusal(events(api, after_sequence=-1), INVALID, "INVALID_REQUEST")


async def test_a_watch_follows_what_comes_and_ends_with_the_blob(api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    watch = api.blobs.WatchBlob(blob_pb2.WatchBlobRequest(blob="acme/pipeline"))
    assert [event.type for event in (await watch.read()).events] == ["blob_created"]
    seen: list[int] = []
    updates = [asyncio.create_task(acme.update_blob(api, description=str(number))) for number in range(20)]
    while len(seen) < len(updates):
        seen += [event.sequence for event in (await watch.read()).events]
    assert seen == list(range(2, 22))
    await asyncio.gather(*updates)
    await acme.delete_blob(api)
    await expect_refusal(watch.read(), NOT_FOUND, "NOT_FOUND")


async def test_an_idle_watch_says_that_it_is_current(tmp_path: Path, database_url: str) -> None:
    async with (
        served(tmp_path / "data", database_url, progress_seconds=0.1) as server,
        connected(server.address, server.admin_key) as api,
    ):
        await acme.organization(api)
        await acme.blob(api)
        watch = api.blobs.WatchBlob(blob_pb2.WatchBlobRequest(blob="acme/pipeline"))
        assert (await watch.read()).events
        message = await watch.read()
        assert list(message.events) == []
        assert message.progress.sequence == 1
        assert message.progress.HasField("time")
        watch.cancel()


async def test_what_was_never_committed_is_never_seen(api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    await expect_refusal(acme.update_blob(api, alias="other", etag="stale"), grpc.StatusCode.ABORTED, "STALE_ETAG")
    await expect_refusal(api.publish(), PRECONDITION, "INVALID_CONTENT")
    assert [event.type for event in await events(api)] == ["blob_created"]


async def test_a_blob_that_becomes_private_is_watched_no_more_by_outsiders(server: Served, api: Api, anonymous: Api) -> None:
    await acme.organization(api)
    await acme.blob(api, visibility=PUBLIC)
    await acme.update_blob(api, description="shown to everybody")
    async with acme.person(server, api, "ann", ("acme/pipeline", READ)) as member:
        request = blob_pb2.WatchBlobRequest(blob="acme/pipeline")
        outside, inside = anonymous.blobs.WatchBlob(request), member.blobs.WatchBlob(request)
        for watch in (outside, inside):
            assert (await watch.read()).events
        await acme.update_blob(api, visibility=PRIVATE)
        assert [event.blob_updated.public for event in (await inside.read()).events] == [False]

        async def ended() -> None:
            while True:
                await outside.read()

        await expect_refusal(ended(), UNAUTHENTICATED, "UNAUTHENTICATED")
        inside.cancel()
