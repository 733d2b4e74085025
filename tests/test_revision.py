"""Revisions: draft, commit, snapshot, one way; references; etags; requests made twice."""

from __future__ import annotations

import asyncio
import uuid

import flows
import grpc
import pytest
from blobhub.v1 import blob_pb2, definition_pb2, organization_pb2, revision_pb2
from blobhub_server.blobtypes.conformance import expect_refusal, reason_of
from served import WORKFLOW, Api

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


async def blob(api: Api) -> str:
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    await api.blobs.CreateBlob(blob_pb2.CreateBlobRequest(organization="acme", alias="pipeline", type=WORKFLOW))
    await api.put(flows.steps(2))
    return "acme/pipeline"


async def revision(api: Api, reference: str) -> revision_pb2.Revision:
    return (await api.revisions.GetRevision(revision_pb2.GetRevisionRequest(revision=reference))).revision


async def branch(api: Api, base: str = "") -> revision_pb2.Revision:
    request = revision_pb2.CreateRevisionRequest(blob="acme/pipeline", base_revision=base, comment="more")
    return (await api.revisions.CreateRevision(request)).revision


async def test_a_revision_goes_from_draft_to_commit_to_snapshot(api: Api) -> None:
    reference = await blob(api)
    draft = await revision(api, f"{reference}@draft")
    assert (draft.phase, draft.digest, draft.number) == (revision_pb2.REVISION_PHASE_DRAFT, "", 0)
    commit = (
        await api.revisions.CommitRevision(revision_pb2.CommitRevisionRequest(revision=draft.id, comment="done"))
    ).revision
    assert commit.phase == revision_pb2.REVISION_PHASE_COMMIT
    assert (len(commit.digest), commit.comment) == (64, "done")
    snapshot = (
        await api.revisions.PublishRevision(revision_pb2.PublishRevisionRequest(revision=commit.id, label="one"))
    ).revision
    assert (snapshot.phase, snapshot.number, snapshot.label) == (
        revision_pb2.REVISION_PHASE_SNAPSHOT,
        1,
        "one",
    )
    assert snapshot.digest == commit.digest
    assert await revision(api, f"{reference}@1") == snapshot
    assert await revision(api, reference) == snapshot
    assert await revision(api, f"{reference}@default") == snapshot
    assert await revision(api, f"{reference}@{snapshot.id}") == snapshot
    found = await api.blobs.GetBlob(blob_pb2.GetBlobRequest(blob=reference))
    assert found.blob.default_revision_id == snapshot.id
    assert await revision(api, f"{found.blob.id}@1") == snapshot


@pytest.mark.either_database
async def test_the_phases_are_one_way(api: Api) -> None:
    await blob(api)
    snapshot = await api.publish()
    for call in (
        api.revisions.CommitRevision(revision_pb2.CommitRevisionRequest(revision=snapshot.id)),
        api.revisions.PublishRevision(revision_pb2.PublishRevisionRequest(revision=snapshot.id)),
        api.revisions.DiscardRevision(revision_pb2.DiscardRevisionRequest(revision=snapshot.id)),
        api.put(flows.steps(3), revision=snapshot.id),
    ):
        await expect_refusal(call, PRECONDITION, "WRONG_PHASE")
    draft = await branch(api)
    publish = api.revisions.PublishRevision(revision_pb2.PublishRevisionRequest(revision=draft.id))
    await expect_refusal(publish, PRECONDITION, "WRONG_PHASE")
    await expect_refusal(branch(api, draft.id), PRECONDITION, "WRONG_PHASE")


async def test_a_branch_keeps_aliases_and_gets_new_ids(api: Api) -> None:
    await blob(api)
    snapshot = await api.publish()
    draft = await branch(api, "1")
    assert draft.base_revision_id == snapshot.id
    listed = [
        (await api.definitions.ListDefinitions(definition_pb2.ListDefinitionsRequest(revision=one))).definitions[0]
        for one in (snapshot.id, draft.id)
    ]
    assert (listed[0].alias, listed[0].digest) == (listed[1].alias, listed[1].digest)
    assert listed[0].id != listed[1].id


async def test_snapshots_are_numbered_without_gaps_under_concurrency(api: Api) -> None:
    await blob(api)
    await api.publish()
    commits = []
    for number in range(8):
        draft = await branch(api)
        await api.put(flows.steps(number + 1), revision=draft.id)
        commits.append(await api.revisions.CommitRevision(revision_pb2.CommitRevisionRequest(revision=draft.id)))
    published = await asyncio.gather(
        *(
            api.revisions.PublishRevision(revision_pb2.PublishRevisionRequest(revision=commit.revision.id))
            for commit in commits
        )
    )
    assert sorted(answer.revision.number for answer in published) == list(range(2, 10))


@pytest.mark.either_database
async def test_the_default_stays_when_told_to(api: Api) -> None:
    reference = await blob(api)
    first = await api.publish()
    draft = await branch(api)
    commit = await api.revisions.CommitRevision(revision_pb2.CommitRevisionRequest(revision=draft.id))
    request = revision_pb2.PublishRevisionRequest(revision=commit.revision.id, keep_default=True)
    assert (await api.revisions.PublishRevision(request)).revision.number == 2
    assert (await revision(api, reference)).id == first.id


async def test_a_discarded_revision_is_gone_and_one_in_use_is_not(api: Api) -> None:
    reference = await blob(api)
    only = await revision(api, f"{reference}@draft")
    discard = api.revisions.DiscardRevision(revision_pb2.DiscardRevisionRequest(revision=only.id))
    error = await expect_refusal(discard, PRECONDITION, "REVISION_IN_USE")
    assert "default pointer" in (error.details() or "")
    await api.publish()
    draft = await branch(api)
    await api.revisions.DiscardRevision(revision_pb2.DiscardRevisionRequest(revision=draft.id))
    get = api.revisions.GetRevision(revision_pb2.GetRevisionRequest(revision=f"{reference}@{draft.id}"))
    await expect_refusal(get, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    listed = await api.revisions.ListRevisions(revision_pb2.ListRevisionsRequest(blob=reference))
    assert [item.number for item in listed.revisions] == [1]


@pytest.mark.either_database
async def test_references_that_mean_nothing_or_too_much(api: Api) -> None:
    reference = await blob(api)
    await api.publish()
    not_found = grpc.StatusCode.NOT_FOUND
    for text in (f"{reference}@2", f"{reference}@draft", f"{reference}@{uuid.uuid4()}"):
        await expect_refusal(
            api.revisions.GetRevision(revision_pb2.GetRevisionRequest(revision=text)), not_found, "NOT_FOUND"
        )
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    for text in (
        "acme",
        "acme/pipeline@",
        "acme/pipeline@0",
        "Acme/pipeline",
        "acme//pipeline",
        "a/b/c",
        "acme/pipeline@one",
    ):
        get = api.revisions.GetRevision(revision_pb2.GetRevisionRequest(revision=text))
        await expect_refusal(get, invalid, "INVALID_REFERENCE")
    for _ in range(2):
        await branch(api)
    get = api.revisions.GetRevision(revision_pb2.GetRevisionRequest(revision=f"{reference}@draft"))
    await expect_refusal(get, invalid, "AMBIGUOUS_REFERENCE")


@pytest.mark.either_database
async def test_a_stale_etag_is_told_the_current_one(api: Api) -> None:
    reference = await blob(api)
    before = await revision(api, f"{reference}@draft")
    await api.put(flows.steps(4))
    request = definition_pb2.PutDefinitionRequest(
        revision=f"{reference}@draft", alias="workflow", document=flows.steps(5), etag=before.etag
    )
    error = await expect_refusal(api.definitions.PutDefinition(request), grpc.StatusCode.ABORTED, "STALE_ETAG")
    current = await revision(api, f"{reference}@draft")
    assert current.etag.encode() in b"".join(v for k, v in error.trailing_metadata() or () if k.endswith("-bin"))
    request.etag = current.etag
    answer = await api.definitions.PutDefinition(request)
    assert (await revision(api, f"{reference}@draft")).etag == answer.revision_etag
    remove = definition_pb2.DeleteDefinitionRequest(definition=f"{reference}@draft/workflow", etag="old")
    await expect_refusal(api.definitions.DeleteDefinition(remove), grpc.StatusCode.ABORTED, "STALE_ETAG")
    remove.etag = answer.revision_etag
    removed = await api.definitions.DeleteDefinition(remove)
    assert (await revision(api, f"{reference}@draft")).etag == removed.revision_etag
    await expect_refusal(api.definitions.DeleteDefinition(remove), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_a_request_made_twice_is_done_once(api: Api) -> None:
    request = organization_pb2.CreateOrganizationRequest(alias="acme", request_id=str(uuid.uuid4()))
    first = await api.organizations.CreateOrganization(request)
    assert await api.organizations.CreateOrganization(request) == first
    request.alias = "other"
    reused = api.organizations.CreateOrganization(request)
    await expect_refusal(reused, grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    taken = api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    await expect_refusal(taken, grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    listed = await api.organizations.ListOrganizations(organization_pb2.ListOrganizationsRequest())
    assert [item.alias for item in listed.organizations] == ["acme"]
    got = await api.organizations.GetOrganization(
        organization_pb2.GetOrganizationRequest(organization=first.organization.id)
    )
    assert got.organization == first.organization


async def test_the_same_request_at_the_same_time_is_done_once(api: Api) -> None:
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    request = blob_pb2.CreateBlobRequest(organization="acme", alias="one", type=WORKFLOW, request_id=str(uuid.uuid4()))
    answers = await asyncio.gather(*(api.blobs.CreateBlob(request) for _ in range(16)), return_exceptions=True)
    made = {answer.blob.id for answer in answers if isinstance(answer, blob_pb2.CreateBlobResponse)}
    failed = [reason_of(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(made) == 1
    assert failed == []


@pytest.mark.either_database
async def test_a_commit_is_answered_again_though_the_draft_is_gone(api: Api) -> None:
    """The reference `@draft` no longer leads anywhere when the answer was lost and the call is made again."""
    await blob(api)
    request = revision_pb2.CommitRevisionRequest(revision="acme/pipeline@draft", request_id=str(uuid.uuid4()))
    first = await api.revisions.CommitRevision(request)
    assert await api.revisions.CommitRevision(request) == first


async def test_pages_neither_skip_nor_repeat_while_things_are_added(api: Api) -> None:
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))

    async def add(name: str) -> None:
        await api.blobs.CreateBlob(blob_pb2.CreateBlobRequest(organization="acme", alias=name, type=WORKFLOW))

    for number in range(7):
        await add(f"old-{number}")
    request = blob_pb2.ListBlobsRequest(organization="acme", page_size=3)
    seen: list[str] = []
    for number in range(10):
        answer = await api.blobs.ListBlobs(request)
        seen += [item.alias for item in answer.blobs]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
        if number < 2:
            await add(f"new-{number}")
    assert seen == [f"old-{n}" for n in range(7)] + [f"new-{n}" for n in range(2)]
    request.type = "stranger.notes"
    foreign = api.blobs.ListBlobs(request)
    await expect_refusal(foreign, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")


@pytest.mark.either_database
@pytest.mark.parametrize("document", ["[]", "{{", '{"type": "other"}', '{"type":"workflow_definition","components":[1]}'])
async def test_what_is_not_a_definition_is_refused(api: Api, document: str) -> None:
    await blob(api)
    await expect_refusal(api.put(document), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_DEFINITION")
