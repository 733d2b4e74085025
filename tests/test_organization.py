"""Organizations: created, found, listed, changed, renamed and deleted, with all that is in them."""

from __future__ import annotations

import asyncio
import uuid
from functools import partial

import acme
import flows
import grpc
import pytest
from acme import ADMIN, PRIVATE, PUBLIC, READ, WRITE, aliases
from blobhub.v1 import (
    audit_pb2,
    blob_pb2,
    caller_pb2,
    execution_pb2,
    member_pb2,
    organization_pb2,
    revision_pb2,
    session_pb2,
)
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from google.rpc import error_details_pb2
from served import Api, Served, connected
from waiting import read_to_end, refused_in_the_end

pytestmark = pytest.mark.either_database

DENIED = grpc.StatusCode.PERMISSION_DENIED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
EXISTS = grpc.StatusCode.ALREADY_EXISTS
INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def get(api: Api, reference: str = "acme") -> organization_pb2.Organization:
    request = organization_pb2.GetOrganizationRequest(organization=reference)
    return (await api.organizations.GetOrganization(request)).organization


async def update(api: Api, reference: str = "acme", **fields) -> organization_pb2.Organization:
    request = organization_pb2.UpdateOrganizationRequest(organization=reference, **fields)
    return (await api.organizations.UpdateOrganization(request)).organization


async def listed(api: Api, **fields) -> list[str]:
    request = organization_pb2.ListOrganizationsRequest(**fields)
    return aliases((await api.organizations.ListOrganizations(request)).organizations)


def reference_of_today(error: grpc.aio.AioRpcError) -> str:
    """What an error says that something is called now."""
    info = error_details_pb2.ErrorInfo()
    assert unpack(error, info)
    return info.metadata["alias"]


@pytest.mark.both_databases
async def test_who_creates_an_organization_is_its_admin(server: Served, api: Api) -> None:
    async with acme.person(server, api, "ann") as ann:
        made = await acme.organization(ann, "acme", description="what it is for")
        assert (made.alias, made.description) == ("acme", "what it is for")
        assert made.visibility == blob_pb2.VISIBILITY_PRIVATE
        assert made.create_time == made.update_time
        assert await get(ann) == await get(ann, made.id) == made
        me = await ann.members.GetMember(member_pb2.GetMemberRequest(parent="acme", user="@me"))
        assert (me.member.user_name, me.member.role, me.member.organization_id) == ("ann", 3, made.id)


@pytest.mark.parametrize("alias", ["", "A", "-", "a b", "a/b", "a.b", "a" * 64, "01890000-0000-7000-8000-000000000000"])
async def test_an_alias_that_references_cannot_hold_is_refused(api: Api, alias: str) -> None:
    await expect_refusal(acme.organization(api, alias), INVALID, "INVALID_REQUEST")


async def test_an_organization_is_created_by_users_with_all_of_their_roles_alone(
    server: Served, api: Api, anonymous: Api
) -> None:
    await acme.organization(api)
    await expect_refusal(acme.organization(anonymous, "mine"), grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    async with acme.person(server, api, "ann", key_role=WRITE) as confined:
        await expect_refusal(acme.organization(confined, "mine"), DENIED, "PERMISSION_DENIED")
    async with connected(server.address, (await acme.key(api, "acme", WRITE)).key) as scoped:
        await expect_refusal(acme.organization(scoped, "mine"), DENIED, "PERMISSION_DENIED")


async def test_a_public_organization_is_seen_by_everybody_and_a_private_one_by_its_members(
    server: Served, api: Api, anonymous: Api
) -> None:
    await acme.organization(api, "open", visibility=PUBLIC)
    await acme.organization(api, "shut")
    await acme.blob(api, "shut/pipeline", visibility=PUBLIC)
    assert (await get(anonymous, "open")).alias == "open"
    await expect_refusal(get(anonymous, "shut"), grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    async with (
        acme.person(server, api, "ann", ("shut", READ)) as member,
        acme.person(server, api, "bob", ("shut/pipeline", ADMIN)) as of_a_blob,
    ):
        assert (await get(member, "shut")).alias == "shut"
        await expect_refusal(get(of_a_blob, "shut"), DENIED, "PERMISSION_DENIED")
    await update(api, "open", visibility=PRIVATE)
    await expect_refusal(get(anonymous, "open"), grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


@pytest.mark.both_databases
async def test_the_organizations_that_a_caller_holds_a_role_on_are_listed(server: Served, api: Api, anonymous: Api) -> None:
    for alias in ("one", "two", "three"):
        await acme.organization(api, alias, visibility=PUBLIC)
    await acme.blob(api, "three/pipeline")
    assert await listed(api) == ["one", "two", "three"]
    await expect_refusal(listed(anonymous), grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    async with acme.person(server, api, "ann", ("one", READ), ("two", ADMIN), ("three/pipeline", ADMIN)) as ann:
        assert await listed(ann) == ["one", "two"]
    for scope, seen in (("two", ["two"]), ("three/pipeline", [])):
        async with connected(server.address, (await acme.key(api, scope)).key) as scoped:
            assert await listed(scoped) == seen


@pytest.mark.both_databases
async def test_organizations_are_listed_by_prefix_visibility_and_order(api: Api) -> None:
    for alias in ("b-2", "a", "b-1", "b", "c"):
        await acme.organization(api, alias, visibility=PUBLIC if alias in ("a", "b-2") else PRIVATE)
    await update(api, "a", description="changed last")
    assert await listed(api) == ["b-2", "a", "b-1", "b", "c"]
    assert await listed(api, alias_prefix="b") == ["b", "b-1", "b-2"]
    assert await listed(api, alias_prefix="b", order_by="create_time") == ["b-2", "b-1", "b"]
    assert await listed(api, alias_prefix="b-", order_by="alias desc") == ["b-2", "b-1"]
    assert await listed(api, visibility=PUBLIC) == ["b-2", "a"]
    assert await listed(api, visibility=PRIVATE, order_by="create_time desc") == ["c", "b", "b-1"]
    assert await listed(api, order_by="update_time desc", page_size=1) == ["a"]
    await expect_refusal(listed(api, order_by="description"), INVALID, "INVALID_REQUEST")


@pytest.mark.both_databases
@pytest.mark.parametrize(
    "order_by", ["create_time", "create_time desc", "update_time", "update_time desc", "alias", "alias desc"]
)
async def test_pages_in_every_order_show_each_organization_once(api: Api, order_by: str) -> None:
    made = {f"org-{number}" for number in range(5)}
    for alias in sorted(made):
        await acme.organization(api, alias)
    whole = await listed(api, order_by=order_by)
    request = organization_pb2.ListOrganizationsRequest(order_by=order_by, page_size=2)
    seen: list[str] = []
    while True:
        answer = await api.organizations.ListOrganizations(request)
        seen += aliases(answer.organizations)
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
    assert seen == whole
    assert set(whole) == made


async def test_a_page_token_is_of_one_list_and_one_caller(server: Served, api: Api) -> None:
    for alias in ("one", "two"):
        await acme.organization(api, alias)
    request = organization_pb2.ListOrganizationsRequest(page_size=1)
    token = (await api.organizations.ListOrganizations(request)).next_page_token
    await expect_refusal(listed(api, page_token=token, alias_prefix="o"), INVALID, "INVALID_PAGE_TOKEN")
    await expect_refusal(listed(api, page_token=token, order_by="alias"), INVALID, "INVALID_PAGE_TOKEN")
    async with acme.person(server, api, "ann", ("one", READ)) as ann:
        await expect_refusal(listed(ann, page_token=token), INVALID, "INVALID_PAGE_TOKEN")


async def test_an_update_changes_what_its_mask_names_and_moves_the_etag(api: Api) -> None:
    before = await acme.organization(api, description="old")
    request = {"description": "new", "visibility": PUBLIC, "alias": "ignored"}
    after = await update(api, update_mask={"paths": ["description"]}, **request)
    assert (after.alias, after.description, after.visibility) == ("acme", "new", blob_pb2.VISIBILITY_PRIVATE)
    assert after.etag != before.etag
    assert after.update_time.ToNanoseconds() > before.update_time.ToNanoseconds()
    assert after.create_time == before.create_time
    assert (await update(api, update_mask={"paths": ["description"]})).description == ""
    both = await update(api, visibility=PUBLIC, description="again")
    assert (both.description, both.visibility) == ("again", blob_pb2.VISIBILITY_PUBLIC)
    left = await update(api, update_mask={"paths": ["alias", "visibility"]})
    assert (left.alias, left.visibility) == ("acme", blob_pb2.VISIBILITY_PUBLIC), "empty and unspecified leave it as it is"
    await expect_refusal(update(api, update_mask={"paths": ["create_time"]}), INVALID, "INVALID_REQUEST")


async def test_a_stale_etag_changes_and_deletes_nothing(api: Api) -> None:
    before = await acme.organization(api)
    now = await update(api, description="one", etag=before.etag)
    for call in (update(api, description="two", etag=before.etag), acme.delete_organization(api, etag=before.etag)):
        error = await expect_refusal(call, grpc.StatusCode.ABORTED, "STALE_ETAG")
        info = error_details_pb2.ErrorInfo()
        assert unpack(error, info)
        assert info.metadata["etag"] == now.etag
    assert await get(api) == now


async def test_an_update_is_an_admins(server: Served, api: Api) -> None:
    await acme.organization(api)
    async with acme.person(server, api, "ann", ("acme", WRITE)) as ann:
        for call in (update(ann, description="mine"), acme.delete_organization(ann)):
            await expect_refusal(call, DENIED, "PERMISSION_DENIED")


async def test_references_by_an_old_alias_are_told_the_one_of_today(api: Api) -> None:
    await acme.organization(api, "old")
    blob = await acme.blob(api, "old/pipeline")
    await acme.rename_organization(api, "old", "new")
    draft = await acme.get_revision(api, "new/pipeline@draft")
    told = {
        "new": (get(api, "old"), acme.delete_organization(api, "old"), acme.blob(api, "old/other")),
        "new/pipeline": (acme.get_blob(api, "old/pipeline"), acme.delete_blob(api, "old/pipeline")),
        "new/pipeline@draft": (acme.get_revision(api, "old/pipeline@draft"),),
        "new/pipeline@default": (acme.get_revision(api, "old/pipeline"),),
        f"new/pipeline@{draft.id}": (acme.get_revision(api, f"old/pipeline@{draft.id}"),),
    }
    for today, calls in told.items():
        for call in calls:
            error = await expect_refusal(call, NOT_FOUND, "RENAMED")
            assert reference_of_today(error) == today
    assert await acme.get_blob(api, "new/pipeline") == await acme.get_blob(api, blob.id) == blob
    await acme.update_blob(api, "new/pipeline", alias="flow")
    both = await expect_refusal(acme.get_blob(api, "old/pipeline"), NOT_FOUND, "RENAMED")
    assert reference_of_today(both) == "new/flow"


async def test_an_old_alias_tells_outsiders_nothing(server: Served, api: Api) -> None:
    await acme.organization(api, "old")
    await acme.rename_organization(api, "old", "new")
    async with acme.person(server, api, "ann") as ann:
        said = [await expect_refusal(get(ann, alias), DENIED, "PERMISSION_DENIED") for alias in ("old", "new", "no-such")]
    assert len({(error.details(), str(error.trailing_metadata())) for error in said}) == 1


@pytest.mark.both_databases
async def test_an_old_alias_is_kept_for_its_organization_until_that_is_deleted(api: Api) -> None:
    await acme.organization(api, "first")
    await acme.organization(api, "other")
    await acme.rename_organization(api, "first", "second")
    for take in (acme.organization(api, "first"), update(api, "other", alias="first"), update(api, "other", alias="second")):
        await expect_refusal(take, EXISTS, "ALREADY_EXISTS")
    await acme.rename_organization(api, "second", "third")
    await acme.rename_organization(api, "third", "first")
    error = await expect_refusal(get(api, "second"), NOT_FOUND, "RENAMED")
    assert reference_of_today(error) == "first"
    assert (await get(api, "first")).alias == "first"
    await acme.delete_organization(api, "first")
    for alias in ("first", "second", "third"):
        await expect_refusal(get(api, alias), NOT_FOUND, "NOT_FOUND")
        await acme.organization(api, alias)


async def test_an_organization_with_blobs_is_deleted_by_a_cascade_alone(api: Api) -> None:
    await acme.organization(api)
    for alias in ("one", "two"):
        await acme.blob(api, f"acme/{alias}")
    error = await expect_refusal(acme.delete_organization(api), grpc.StatusCode.FAILED_PRECONDITION, "NOT_EMPTY")
    info = error_details_pb2.ErrorInfo()
    assert unpack(error, info)
    assert info.metadata["holds"] == "2 blobs"
    request = organization_pb2.DeleteOrganizationRequest(organization="acme", cascade=True, request_id=str(uuid.uuid4()))
    answer = await api.organizations.DeleteOrganization(request)
    assert await api.organizations.DeleteOrganization(request) == answer
    assert await listed(api) == []


@pytest.mark.both_databases
async def test_what_was_in_an_organization_is_gone_with_it(server: Served, api: Api) -> None:
    made = await acme.organization(api)
    session_id = await filled(api)
    blob = await acme.get_blob(api)
    of_both = [await acme.key(api, scope) for scope in ("acme", "acme/pipeline")]
    async with acme.person(server, api, "ann", ("acme", ADMIN), ("acme/pipeline", READ)) as ann:
        await acme.delete_organization(ann, cascade=True)
        await expect_refusal(get(ann), DENIED, "PERMISSION_DENIED")
        for call in (
            get(api),
            get(api, made.id),
            acme.get_blob(api, blob.id),
            acme.get_revision(api, blob.default_revision_id),
            api.sessions.GetSession(session_pb2.GetSessionRequest(session=session_id)),
            acme.entries(api, "acme"),
        ):
            await expect_refusal(call, NOT_FOUND, "NOT_FOUND")
        assert list((await ann.callers.GetCaller(caller_pb2.GetCallerRequest())).roles) == []
        assert await acme.organization(ann), "the alias is free"
        assert await listed(ann) == ["acme"]
    for of in of_both:
        async with connected(server.address, of.key) as scoped:
            who = partial(scoped.callers.GetCaller, caller_pb2.GetCallerRequest())
            await refused_in_the_end(who, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    methods = {entry.method.rsplit("/")[1] for entry in await acme.entries(api) if entry.organization_id == made.id}
    assert methods >= {"CreateOrganization", "CreateBlob", "CreateApiKey", "CreateMember", "DeleteOrganization"}


async def filled(api: Api, document: str = "") -> str:
    """Put a workflow into the organization, with a session; return its id."""
    await acme.blob(api)
    await api.put(document or flows.steps(2))
    return (await acme.session(api, "acme/pipeline@draft")).id


async def start(api: Api, session_id: str) -> execution_pb2.Execution:
    request = execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"})
    return (await api.executions.StartExecution(request)).execution


@pytest.mark.both_databases
async def test_a_cascade_cuts_off_what_runs_and_harms_nothing_else(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    await acme.organization(api)
    session_id = await filled(api, flows.delay(0.3))
    running = [await start(api, session_id) for _ in range(5)]
    await acme.organization(api, "other")
    await acme.blob(api, "other/pipeline")
    await api.put(flows.delay(0.6), revision="other/pipeline@draft")
    other = await start(api, (await acme.session(api, "other/pipeline@draft")).id)
    await acme.delete_organization(api, cascade=True)
    for execution in running:
        call = api.executions.GetExecution(execution_pb2.GetExecutionRequest(execution=execution.id))
        await expect_refusal(call, NOT_FOUND, "NOT_FOUND")
    watch = execution_pb2.WatchExecutionRequest(execution=other.id)
    types = [event.type async for batch in api.executions.WatchExecution(watch) for event in batch.events]
    assert types[-1] == "flow.exited"
    assert "journal_failed" not in caplog.text


@pytest.mark.both_databases
async def test_starts_and_a_cascade_at_the_same_time_end_in_one_or_the_other(api: Api) -> None:
    """Whatever falls into the deletion is refused like anything that is not there."""
    await acme.organization(api)
    session_id = await filled(api)
    starting = [asyncio.create_task(start(api, session_id)) for _ in range(30)]
    deleting = asyncio.create_task(acme.delete_organization(api, cascade=True))
    starting += [asyncio.create_task(start(api, session_id)) for _ in range(30)]
    await deleting
    for answer in await asyncio.gather(*starting, return_exceptions=True):
        if isinstance(answer, grpc.aio.AioRpcError):
            assert answer.code() in (DENIED, NOT_FOUND, grpc.StatusCode.ABORTED), answer
        else:
            assert isinstance(answer, execution_pb2.Execution)


async def test_open_watches_end_when_their_organization_is_deleted(api: Api) -> None:
    await acme.organization(api)
    session_id = await filled(api)
    execution = await start(api, session_id)

    watches = [
        api.blobs.WatchBlob(blob_pb2.WatchBlobRequest(blob="acme/pipeline")),
        api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id)),
        api.audit.WatchAuditEntries(audit_pb2.WatchAuditEntriesRequest(parent="acme")),
        api.audit.WatchAuditEntries(audit_pb2.WatchAuditEntriesRequest(parent="acme/pipeline")),
    ]
    for watch in watches:
        assert await watch.read()
    assert execution.id
    await acme.delete_organization(api, cascade=True)
    for watch in watches:
        await expect_refusal(read_to_end(watch), NOT_FOUND, "NOT_FOUND")


@pytest.mark.both_databases
async def test_deleting_an_organization_lets_its_content_be_made_anew(api: Api) -> None:
    """Bytes are shared by digest: a deletion takes none away from who stores the same."""
    await acme.organization(api)
    await filled(api)
    await acme.organization(api, "other")
    await acme.blob(api, "other/pipeline")
    await api.put(flows.steps(2), revision="other/pipeline@draft")
    await acme.delete_organization(api, cascade=True)
    commit = revision_pb2.CommitRevisionRequest(revision="other/pipeline@draft")
    assert (await api.revisions.CommitRevision(commit)).revision.digest
