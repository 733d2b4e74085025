"""Revisions beside each other: several drafts, comments, the default one, comparison, and who depends on them."""

from __future__ import annotations

import uuid

import acme
import flows
import grpc
import pytest
from blobhub.v1 import blob_pb2, definition_pb2, execution_pb2, revision_pb2, session_pb2
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from google.rpc import error_details_pb2
from served import WORKFLOW, Api, Served

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


async def pipeline(api: Api) -> None:
    """Make `acme/pipeline` with a definition in its draft."""
    await acme.organization(api)
    await acme.blob(api)
    await api.put(flows.steps(2))


async def set_default(api: Api, version: str, etag: str = "") -> blob_pb2.Blob:
    request = blob_pb2.UpdateBlobRequest(blob="acme/pipeline", default_revision=version, etag=etag)
    return (await api.blobs.UpdateBlob(request)).blob


async def update(api: Api, reference: str, **fields) -> revision_pb2.Revision:
    request = revision_pb2.UpdateRevisionRequest(revision=reference, **fields)
    return (await api.revisions.UpdateRevision(request)).revision


async def compare(api: Api, newer: str, base: str) -> revision_pb2.CompareRevisionsResponse:
    return await api.revisions.CompareRevisions(revision_pb2.CompareRevisionsRequest(revision=newer, base_revision=base))


async def dependents(api: Api, reference: str) -> dict[str, list[str]]:
    """What refers to a revision: ids by kind."""
    request = revision_pb2.GetRevisionDependentsRequest(revision=reference)
    answer = await api.revisions.GetRevisionDependents(request)
    assert all(item.count == len(item.ids) for item in answer.dependents)
    return {item.kind: list(item.ids) for item in answer.dependents}


@pytest.mark.either_database
async def test_a_drafts_comment_changes_and_a_frozen_ones_does_not(api: Api) -> None:
    await pipeline(api)
    before = await acme.get_revision(api, "acme/pipeline@draft")
    after = await update(api, "acme/pipeline@draft", comment="what it is about", etag=before.etag)
    assert (after.comment, after.phase, after.id) == ("what it is about", before.phase, before.id)
    assert after.etag != before.etag
    assert await acme.get_revision(api, after.id) == after
    stale = update(api, after.id, comment="late", etag=before.etag)
    await expect_refusal(stale, grpc.StatusCode.ABORTED, "STALE_ETAG")
    await expect_refusal(update(api, after.id, comment="x" * 201), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert (await acme.commit(api, after.id)).comment == "what it is about", "an empty comment keeps the draft's"
    await expect_refusal(update(api, after.id, comment="late"), PRECONDITION, "WRONG_PHASE")
    snapshot = await api.revisions.PublishRevision(revision_pb2.PublishRevisionRequest(revision=after.id))
    await expect_refusal(update(api, snapshot.revision.id, comment="late"), PRECONDITION, "WRONG_PHASE")
    draft = await acme.branch(api)
    assert draft.comment == ""
    assert (await update(api, draft.id, comment="more")).comment == "more"
    assert (await update(api, draft.id)).comment == "more", "an empty mask changes what is set, and nothing is"
    assert (await update(api, draft.id, update_mask={"paths": ["comment"]})).comment == ""
    assert (await acme.commit(api, draft.id, comment="given now")).comment == "given now"


@pytest.mark.either_database
async def test_several_drafts_live_side_by_side(api: Api) -> None:
    await pipeline(api)
    first = await api.publish()
    drafts = [await acme.branch(api) for _ in range(3)]
    for number, draft in enumerate(drafts):
        await api.put(flows.steps(number + 3), revision=draft.id)
    assert len({(await acme.commit(api, draft.id)).digest for draft in drafts} | {first.digest}) == 4
    listed = await api.revisions.ListRevisions(revision_pb2.ListRevisionsRequest(blob="acme/pipeline"))
    assert [item.id for item in listed.revisions] == [first.id, *(draft.id for draft in drafts)]
    assert {item.base_revision_id for item in listed.revisions[1:]} == {first.id}
    onward = await acme.branch(api, drafts[1].id)
    assert onward.base_revision_id == drafts[1].id
    assert not (await compare(api, onward.id, drafts[1].id)).changes


@pytest.mark.either_database
async def test_a_base_must_be_a_frozen_revision_of_the_same_blob(api: Api) -> None:
    await pipeline(api)
    snapshot = await api.publish()
    await acme.blob(api, "acme/other")
    foreign = revision_pb2.CreateRevisionRequest(blob="acme/other", base_revision=snapshot.id)
    for call in (acme.branch(api, "2"), acme.branch(api, str(uuid.uuid4())), api.revisions.CreateRevision(foreign)):
        await expect_refusal(call, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    await expect_refusal(acme.branch(api, "acme/pipeline@1"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REFERENCE")
    await acme.branch(api)
    for base in ("draft", "default"):
        request = revision_pb2.CreateRevisionRequest(blob="acme/other", base_revision=base)
        await expect_refusal(api.revisions.CreateRevision(request), PRECONDITION, "WRONG_PHASE")


@pytest.mark.either_database
async def test_the_default_revision_is_any_of_the_blob(api: Api) -> None:
    await pipeline(api)
    first = await api.publish()
    draft = await acme.branch(api)
    assert (await set_default(api, "draft")).default_revision_id == draft.id
    await expect_refusal(acme.branch(api), PRECONDITION, "WRONG_PHASE")
    assert (await set_default(api, "latest")).default_revision_id == first.id
    frozen = await acme.commit(api, draft.id)
    before = await acme.get_blob(api)
    moved = await set_default(api, frozen.id, before.etag)
    after = await acme.get_blob(api)
    assert moved == after
    assert after.default_revision_id == frozen.id
    assert after.update_time.ToNanoseconds() > before.update_time.ToNanoseconds()
    assert (
        (await acme.get_revision(api, "acme/pipeline")).id
        == (await acme.get_revision(api, "acme/pipeline@default")).id
        == frozen.id
    )
    assert (await acme.branch(api)).base_revision_id == frozen.id
    await expect_refusal(set_default(api, "1", before.etag), grpc.StatusCode.ABORTED, "STALE_ETAG")
    assert (await set_default(api, "1", after.etag)).default_revision_id == first.id
    await expect_refusal(set_default(api, "2"), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    await expect_refusal(set_default(api, "newest"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REFERENCE")


async def test_the_latest_revision_is_the_one_that_was_committed_last(api: Api) -> None:
    await pipeline(api)
    await expect_refusal(acme.get_revision(api, "acme/pipeline@latest"), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    first = await api.publish()
    one, two = await acme.branch(api), await acme.branch(api)
    assert (await acme.get_revision(api, "acme/pipeline@latest")).id == first.id
    for each in (two, one):
        committed = await acme.commit(api, each.id)
        assert committed.HasField("commit_time")
        assert (await acme.get_revision(api, "acme/pipeline@latest")) == committed
    assert not (await acme.branch(api)).HasField("commit_time")


async def test_a_comparison_says_what_was_added_removed_and_modified(api: Api) -> None:
    await pipeline(api)
    for alias in ("stays-the-same", "goes-away"):
        await api.put(flows.steps(1), alias=alias)
    await api.publish()
    draft = await acme.branch(api)
    await api.put(flows.steps(5), revision=draft.id)
    await api.put(flows.steps(1), revision=draft.id, alias="stays-the-same")
    await api.put(flows.steps(1), revision=draft.id, alias="comes-anew")
    remove = definition_pb2.DeleteDefinitionRequest(definition=f"{draft.id}/goes-away")
    await api.definitions.DeleteDefinition(remove)
    found = await compare(api, draft.id, "acme/pipeline@1")
    added, removed, modified = found.changes
    assert [change.name for change in found.changes] == ["comes-anew", "goes-away", "workflow"]
    assert [change.kind for change in found.changes] == [
        revision_pb2.CHANGE_KIND_ADDED,
        revision_pb2.CHANGE_KIND_REMOVED,
        revision_pb2.CHANGE_KIND_MODIFIED,
    ]
    assert (added.base_digest, added.base_size, removed.digest, removed.size) == ("", 0, "", 0)
    assert added.digest == removed.base_digest, "the same bytes"
    assert added.size == removed.base_size == len(flows.steps(1))
    assert (modified.base_size, modified.size) == (len(flows.steps(2)), len(flows.steps(5)))
    assert modified.digest != modified.base_digest
    assert (found.unchanged, found.truncated) == (1, False)
    back = await compare(api, "acme/pipeline@1", draft.id)
    assert [(change.name, change.kind) for change in back.changes][:2] == [
        ("comes-anew", revision_pb2.CHANGE_KIND_REMOVED),
        ("goes-away", revision_pb2.CHANGE_KIND_ADDED),
    ]
    same = await compare(api, draft.id, draft.id)
    assert (list(same.changes), same.unchanged) == ([], 3)


@pytest.mark.either_database
async def test_revisions_of_two_blobs_are_compared_when_their_type_is_the_same(api: Api) -> None:
    await pipeline(api)
    for alias, type_ in (("twin", WORKFLOW), ("notes", "stranger.notes")):
        await acme.blob(api, f"acme/{alias}", type_)
    found = await compare(api, "acme/pipeline@draft", "acme/twin@draft")
    assert [change.kind for change in found.changes] == [revision_pb2.CHANGE_KIND_ADDED]
    for pair in (("acme/pipeline@draft", "acme/notes@draft"), ("acme/notes@draft", "acme/pipeline@draft")):
        await expect_refusal(compare(api, *pair), PRECONDITION, "WRONG_BLOB_TYPE")
    for pair in (("acme/pipeline@1", "acme/twin@draft"), ("acme/twin@draft", "acme/pipeline@1")):
        await expect_refusal(compare(api, *pair), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


@pytest.mark.either_database
async def test_both_sides_of_a_comparison_must_be_ones_to_see(server: Served, api: Api, anonymous: Api) -> None:
    await pipeline(api)
    for alias, visibility in (("open", "VISIBILITY_PUBLIC"), ("shut", "VISIBILITY_PRIVATE")):
        await acme.blob(api, f"acme/{alias}", visibility=visibility)
    await expect_refusal(
        compare(anonymous, "acme/open@draft", "acme/open@draft"), grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"
    )
    async with acme.person(server, api, "ann", ("acme/pipeline", acme.READ), ("acme/open", acme.READ)) as ann:
        await compare(ann, "acme/pipeline@draft", "acme/open@draft")
        said = [
            await expect_refusal(compare(ann, *pair), grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
            for pair in (
                ("acme/pipeline@draft", "acme/shut@draft"),
                ("acme/shut@draft", "acme/pipeline@draft"),
                ("acme/shut@1", "acme/pipeline@draft"),
                ("acme/pipeline@draft", "no/such@draft"),
            )
        ]
    assert len({(error.details(), str(error.trailing_metadata())) for error in said}) == 1


async def test_the_dependents_of_a_revision_are_named(api: Api) -> None:
    await pipeline(api)
    draft = await acme.get_revision(api, "acme/pipeline@draft")
    assert await dependents(api, draft.id) == {"default pointer": [draft.blob_id]}
    await api.put(flows.delay(60))
    snapshot = await api.publish()
    branches = [(await acme.branch(api)).id for _ in range(2)]
    sessions = [(await acme.session(api, snapshot.id)).id for _ in range(2)]
    start = execution_pb2.StartExecutionRequest(session=sessions[0], spec={"definition": "workflow"})
    execution = (await api.executions.StartExecution(start)).execution
    assert await dependents(api, "acme/pipeline@1") == {
        "default pointer": [snapshot.blob_id],
        "branched revisions": branches,
        "sessions": sessions,
        "running executions": [execution.id],
    }
    assert await dependents(api, branches[0]) == {}


async def test_many_dependents_are_counted_and_the_first_hundred_named(api: Api) -> None:
    await pipeline(api)
    await api.publish()
    branches = [(await acme.branch(api)).id for _ in range(103)]
    request = revision_pb2.GetRevisionDependentsRequest(revision="acme/pipeline@1")
    found = (await api.revisions.GetRevisionDependents(request)).dependents
    assert [(item.kind, item.count) for item in found] == [("default pointer", 1), ("branched revisions", 103)]
    assert list(found[1].ids) == branches[:100]


@pytest.mark.either_database
async def test_who_depends_on_a_revision_is_told_to_those_with_a_role(api: Api, anonymous: Api) -> None:
    await pipeline(api)
    await acme.update_blob(api, visibility=acme.PUBLIC)
    snapshot = await api.publish()
    assert await acme.get_revision(anonymous, "acme/pipeline") == snapshot
    call = dependents(anonymous, "acme/pipeline")
    await expect_refusal(call, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


async def test_what_anything_refers_to_is_not_discarded(api: Api) -> None:
    """A closed session keeps its revision as well: its history tells what ran."""
    await pipeline(api)
    await api.publish()
    base = await acme.commit(api, (await acme.branch(api)).id)
    await acme.branch(api, base.id)
    bound = await acme.branch(api)
    session = await acme.session(api, bound.id)
    await api.sessions.CloseSession(session_pb2.CloseSessionRequest(session=session.id))
    for kept, kind in ((base, "branched revisions"), (bound, "sessions")):
        assert kind in await dependents(api, kept.id)
        discard = api.revisions.DiscardRevision(revision_pb2.DiscardRevisionRequest(revision=kept.id))
        error = await expect_refusal(discard, PRECONDITION, "REVISION_IN_USE")
        info = error_details_pb2.ErrorInfo()
        assert unpack(error, info)
        assert info.metadata["dependents"] == f"1 {kind}"
