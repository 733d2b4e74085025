"""The audit log: every change and every refusal, who may read it, and that it outlives what it tells about."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import acme
import flows
import grpc
import pytest
from acme import ADMIN, PUBLIC, READ, WRITE
from blobhub.v1 import (
    api_key_pb2,
    audit_pb2,
    caller_pb2,
    execution_pb2,
    member_pb2,
    organization_pb2,
    revision_pb2,
    user_pb2,
)
from blobhub_client import page
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.platform.calls.audit import TokenBucket
from blobhub_server.rpc.paging import Page, _encode_token
from calling import ask
from served import WORKFLOW, Api, Served, connected, served
from waiting import read_to_end, until

pytestmark = pytest.mark.either_database

DENIED = grpc.StatusCode.PERMISSION_DENIED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


async def last(api: Api, scope: str = "-", **filters) -> audit_pb2.AuditEntry:
    return (await acme.entries(api, scope, **filters))[-1]


async def methods(api: Api, scope: str, **filters) -> list[str]:
    return [entry.method.rsplit("/")[1] for entry in await acme.entries(api, scope, **filters)]


async def watched(api: Api, scope: str = "-", after_sequence: int = 0) -> list[audit_pb2.AuditEntry]:
    """What a watch has to say of what is there."""
    request = audit_pb2.WatchAuditEntriesRequest(parent=scope, after_sequence=after_sequence, replay_only=True)
    return [entry async for batch in api.audit.WatchAuditEntries(request) for entry in batch.entries]


async def me(api: Api) -> caller_pb2.Caller:
    return (await api.callers.GetCaller(caller_pb2.GetCallerRequest())).caller


@pytest.mark.both_databases
async def test_a_change_is_entered_with_who_what_and_how_it_ended(api: Api) -> None:
    who, organization = await me(api), await acme.organization(api)
    request_id = str(uuid.uuid4())
    blob = await acme.blob(api, type_="stranger.notes", request_id=request_id)
    started, created_organization, created_blob = await acme.entries(api)
    assert (started.method, started.resource, started.user_id) == ("bootstrap", who.user_id, who.user_id)
    assert started.detail == f"key={who.api_key_id}"
    assert created_blob == audit_pb2.AuditEntry(
        sequence=3,
        id=created_blob.id,
        create_time=created_blob.create_time,
        method="blobhub.v1.BlobService/CreateBlob",
        user_id=who.user_id,
        api_key_id=who.api_key_id,
        organization_id=organization.id,
        blob_id=blob.id,
        resource_type="organization",
        resource="acme",
        code="OK",
        request_id=request_id,
        detail=f"alias=pipeline type=stranger.notes id={blob.id} id={created_blob.detail.rpartition('=')[2]}",
    )
    assert created_organization.organization_id == created_organization.resource == organization.id
    assert (created_organization.resource_type, created_organization.blob_id) == ("organization", "")
    await acme.blob(api, type_="stranger.notes", request_id=request_id)
    assert len(await acme.entries(api)) == 3, "an answer from memory changes nothing"
    user = await acme.user(api, "ann")
    entry = await last(api)
    assert (entry.resource_type, entry.resource, entry.organization_id, entry.request_id) == ("user", user.id, "", "")


async def test_a_key_of_an_organization_is_entered_without_a_user(server: Served, api: Api) -> None:
    await acme.organization(api)
    made = await acme.key(api, "acme", WRITE)
    async with connected(server.address, made.key) as scoped:
        await acme.blob(scoped)
    entry = await last(api, "acme/pipeline")
    assert (entry.user_id, entry.api_key_id, entry.code) == ("", made.api_key.id, "OK")


async def test_a_change_that_fails_is_entered_with_its_reason_and_whose_that_is(api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    await acme.blob(api, "acme/notes", "stranger.notes")
    await ask(api, "PutNote", revision="acme/notes@draft", name="blank")
    run = {"revision": "acme/notes@draft", "name": "blank", "workflow": "acme/pipeline@draft", "definition": "workflow"}
    bad = {"revision": "acme/pipeline@draft", "alias": "workflow", "document": "no JSON"}
    for call, code, reason, domain in (
        (acme.blob(api), "ALREADY_EXISTS", "ALREADY_EXISTS", "blobhub"),
        (acme.delete_organization(api), "FAILED_PRECONDITION", "NOT_EMPTY", "blobhub"),
        (acme.update_blob(api, description="x", etag="stale"), "ABORTED", "STALE_ETAG", "blobhub"),
        (acme.commit(api), "FAILED_PRECONDITION", "INVALID_CONTENT", "blobhub"),
        (ask(api, "PutDefinition", **bad), "INVALID_ARGUMENT", "INVALID_DEFINITION", WORKFLOW),
        (ask(api, "RunNote", **run), "FAILED_PRECONDITION", "EMPTY_NOTE", "stranger.notes"),
    ):
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call
        entry = await last(api, "acme")
        assert (entry.code, entry.reason, entry.domain) == (code, reason, domain)
    await acme.update_blob(api, description="x")
    entry = await last(api, "acme")
    assert (entry.code, entry.reason, entry.domain) == ("OK", "", "")


async def test_what_does_not_reach_its_handler_and_what_only_reads_is_not_entered(api: Api) -> None:
    await acme.organization(api)
    before = await acme.entries(api)
    await expect_refusal(acme.organization(api, "Not an alias"), INVALID, "INVALID_REQUEST")
    await expect_refusal(acme.delete_blob(api, "not a reference"), INVALID, "INVALID_REFERENCE")
    await api.organizations.GetOrganization(organization_pb2.GetOrganizationRequest(organization="acme"))
    await expect_refusal(acme.get_revision(api, "acme@1"), INVALID, "INVALID_REFERENCE")
    assert await acme.entries(api) == before


async def test_every_refusal_is_entered_of_methods_that_read_as_well(server: Served, api: Api, anonymous: Api) -> None:
    organization = await acme.organization(api)
    blob = await acme.blob(api)
    async with acme.person(server, api, "ann") as ann:
        who, before = await me(ann), len(await acme.entries(api))
        for call in (acme.get_blob(ann), acme.delete_blob(ann, request_id=str(uuid.uuid4()))):
            await expect_refusal(call, DENIED, "PERMISSION_DENIED")
        await expect_refusal(acme.get_blob(ann, "no-such/blob"), DENIED, "PERMISSION_DENIED")
        await expect_refusal(acme.organization(anonymous), UNAUTHENTICATED, "UNAUTHENTICATED")
        await expect_refusal(acme.get_blob(anonymous), UNAUTHENTICATED, "UNAUTHENTICATED")
    read, delete, absent, unknown, outside = (await acme.entries(api))[before:]
    for entry in (read, delete):
        assert (entry.user_id, entry.api_key_id) == (who.user_id, who.api_key_id)
        assert (entry.code, entry.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
        assert (entry.organization_id, entry.blob_id) == (organization.id, blob.id)
        assert (entry.resource_type, entry.resource) == ("blob", "acme/pipeline")
    assert (read.method, delete.request_id != "") == ("blobhub.v1.BlobService/GetBlob", True)
    assert (absent.organization_id, absent.resource) == ("", "no-such/blob")
    assert (unknown.user_id, unknown.api_key_id, unknown.code) == ("", "", "UNAUTHENTICATED")
    assert (outside.user_id, outside.blob_id, outside.code) == ("", blob.id, "UNAUTHENTICATED")


async def test_a_key_that_no_longer_holds_is_entered_and_one_that_is_none_is_not(server: Served, api: Api) -> None:
    await acme.organization(api)
    made = await acme.key(api, "acme")
    ann = await acme.user(api, "ann")
    of_ann = await acme.key(api, "@ann", ADMIN)
    await acme.update_user(api, "@ann", disabled=True)
    await api.api_keys.RevokeApiKey(api_key_pb2.RevokeApiKeyRequest(api_key=made.api_key.id))
    before = len(await acme.entries(api))
    for key in ("bhk_nonsense", made.key[:-1] + "x", made.key, of_ann.key):
        async with connected(server.address, key) as caller:
            await expect_refusal(acme.get_blob(caller), UNAUTHENTICATED, "UNAUTHENTICATED")
    revoked, disabled = (await acme.entries(api))[before:]
    assert (revoked.user_id, revoked.api_key_id, revoked.code) == ("", made.api_key.id, "UNAUTHENTICATED")
    assert (disabled.user_id, disabled.api_key_id) == (ann.id, of_ann.api_key.id)


@pytest.mark.parametrize("request_id", ["x" * 100_000, "\0", "not-a-uuid", "é" * 36])
async def test_what_has_no_form_is_not_in_the_log_and_every_refusal_is(server: Served, api: Api, request_id: str) -> None:
    async with acme.person(server, api, "ann") as ann:
        before = len(await acme.entries(api))
        await expect_refusal(acme.user(ann, "bob", request_id=request_id), INVALID, "INVALID_REQUEST")
        await expect_refusal(acme.user(ann, "bob"), DENIED, "PERMISSION_DENIED")
        await expect_refusal(acme.delete_blob(ann, "x" * 100), INVALID, "INVALID_REFERENCE")
        await expect_refusal(ann.users.GetUser(user_pb2.GetUserRequest(user=str(uuid.uuid4()))), DENIED, "PERMISSION_DENIED")
    assert [entry.code for entry in (await acme.entries(api))[before:]] == ["PERMISSION_DENIED"] * 2


async def test_an_admin_of_an_organization_sees_its_own_entries_and_administrators_all(server: Served, api: Api) -> None:
    for alias in ("acme", "other"):
        await acme.organization(api, alias)
        await acme.blob(api, f"{alias}/pipeline")
        await acme.blob(api, f"{alias}/second")
    async with (
        acme.person(server, api, "ann", ("acme", ADMIN)) as admin,
        acme.person(server, api, "bob", ("acme/pipeline", ADMIN)) as of_the_blob,
        acme.person(server, api, "cid", ("acme", WRITE)) as writer,
    ):
        of_acme = await acme.entries(admin, "acme")
        assert of_acme == await acme.entries(api, "acme") == await watched(admin, "acme")
        assert {entry.organization_id for entry in of_acme} == {of_acme[0].organization_id}
        of_blob = await acme.entries(admin, "acme/pipeline")
        assert [entry.method.rsplit("/")[1] for entry in of_blob] == ["CreateBlob", "CreateMember"]
        assert of_blob == await acme.entries(of_the_blob, "acme/pipeline") == await watched(of_the_blob, "acme/pipeline")
        for caller, scopes in (
            (admin, ("-", "other", "other/pipeline", "no-such")),
            (of_the_blob, ("-", "acme", "acme/second")),
            (writer, ("-", "acme", "acme/pipeline")),
        ):
            for scope in scopes:
                for call in (acme.entries(caller, scope), watched(caller, scope)):
                    await expect_refusal(call, DENIED, "PERMISSION_DENIED")
    everything = await acme.entries(api)
    assert [entry.sequence for entry in everything] == list(range(1, len(everything) + 1))
    assert len({entry.id for entry in everything}) == len(everything)


async def test_an_old_alias_as_a_scope_is_told_as_renamed(api: Api) -> None:
    await acme.organization(api)
    await acme.rename_organization(api, "acme", "new")
    for call in (acme.entries(api, "acme"), watched(api, "acme")):
        await expect_refusal(call, grpc.StatusCode.NOT_FOUND, "RENAMED")
    assert await methods(api, "new") == ["CreateOrganization", "UpdateOrganization"]
    await expect_refusal(acme.entries(api, "+"), INVALID, "INVALID_REFERENCE")


@pytest.mark.both_databases
async def test_entries_are_filtered_by_user_method_and_failure(server: Served, api: Api) -> None:
    await acme.organization(api)
    async with acme.person(server, api, "ann", ("acme", WRITE)) as ann:
        who = await me(ann)
        await acme.blob(ann)
        await expect_refusal(acme.blob(ann), grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
        await expect_refusal(acme.delete_organization(ann), DENIED, "PERMISSION_DENIED")
    assert await methods(api, "acme", user="@ann") == ["CreateBlob", "CreateBlob", "DeleteOrganization"]
    assert await methods(api, "acme", failures_only=True) == ["CreateBlob", "DeleteOrganization"]
    create = "blobhub.v1.BlobService/CreateBlob"
    assert await methods(api, "-", method=create) == ["CreateBlob", "CreateBlob"]
    both = await acme.entries(api, "acme", method=create, failures_only=True, user=who.user_id)
    assert [entry.reason for entry in both] == ["ALREADY_EXISTS"]
    assert await acme.entries(api, "acme", method="no.such/Method") == []
    await expect_refusal(acme.entries(api, user="@nobody"), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


@pytest.mark.both_databases
async def test_entries_are_paged_in_order_and_a_token_is_of_one_list(api: Api) -> None:
    await acme.organization(api)
    for number in range(6):
        await acme.blob(api, f"acme/blob-{number}")
    request = audit_pb2.ListAuditEntriesRequest(parent="acme", page_size=2)
    paged = [entry async for entry in page(api.audit.ListAuditEntries, request)]
    assert paged == await acme.entries(api, "acme")
    request.page_token = (await api.audit.ListAuditEntries(request)).next_page_token
    for other in ({"parent": "-"}, {"failures_only": True}, {"parent": "acme/blob-0"}, {"method": "x"}):
        mixed = audit_pb2.ListAuditEntriesRequest()
        mixed.CopyFrom(request)
        mixed.MergeFrom(audit_pb2.ListAuditEntriesRequest(**other))
        await expect_refusal(api.audit.ListAuditEntries(mixed), INVALID, "INVALID_PAGE_TOKEN")


@pytest.mark.both_databases
async def test_entries_outlive_what_they_tell_about(server: Served, api: Api) -> None:
    await acme.organization(api)
    blob = await acme.blob(api)
    async with acme.person(server, api, "ann", ("acme", ADMIN)) as ann:
        await acme.delete_blob(ann)
        assert "DeleteBlob" in await methods(ann, "acme")
        assert [entry.method.rsplit("/")[1] for entry in await acme.entries(ann, "acme") if entry.blob_id == blob.id] == [
            "CreateBlob",
            "DeleteBlob",
        ]
        before = await acme.entries(api)
        await acme.delete_organization(ann)
        await expect_refusal(acme.entries(ann, "acme"), DENIED, "PERMISSION_DENIED")
    after = await acme.entries(api)
    assert after[: len(before)] == before
    assert "DeleteOrganization" in [
        entry.method.rsplit("/")[1] for entry in after if entry.organization_id == blob.organization_id
    ]


@pytest.mark.both_databases
async def test_a_watch_resumes_after_any_sequence_and_passes_over_what_is_not_its_own(api: Api) -> None:
    for number in range(4):
        for alias in ("acme", "other"):
            await (acme.blob(api, f"{alias}/blob-{number}") if number else acme.organization(api, alias))
    everything = await watched(api)
    assert everything == await acme.entries(api)
    own = await watched(api, "acme")
    assert [entry.sequence for entry in own] == [2, 4, 6, 8]
    for after in range(len(everything) + 1):
        assert await watched(api, after_sequence=after) == everything[after:]
        assert await watched(api, "acme", after) == [entry for entry in own if entry.sequence > after]
    await expect_refusal(
        watched(api, after_sequence=len(everything) + 1), grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE"
    )


async def test_no_signs_that_steer_a_terminal_and_no_tokens_are_shown(api: Api) -> None:
    token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzbyJ9.c2lnbmF0dXJl"
    await acme.organization(api)
    await acme.blob(api)
    for value in (f"{token}", "a\x1b[31m\nb"):
        publish = api.revisions.PublishRevision(revision_pb2.PublishRevisionRequest(revision="acme/pipeline", label=value))
        await expect_refusal(publish, grpc.StatusCode.FAILED_PRECONDITION, "WRONG_PHASE")
        entry = await last(api)
        assert ("label=" in entry.detail, token in entry.detail, entry.detail.isprintable()) == (True, False, True)


def test_refusals_of_nobody_are_recorded_so_many_a_second() -> None:
    budget, now = TokenBucket(3, 2), datetime(2026, 1, 1, tzinfo=UTC)
    assert [budget.take(now) for _ in range(5)] == [True, True, True, False, False]
    later = now + timedelta(seconds=1)
    assert [budget.take(later) for _ in range(3)] == [True, True, False]
    assert [budget.take(later + timedelta(hours=1)) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("after", ["9" * 30, "1_0", " 7", "-5", "seven"])
async def test_a_token_that_is_no_number_is_none_of_the_lists(api: Api, after: str) -> None:
    request = audit_pb2.ListAuditEntriesRequest(parent="-")
    request.page_token = _encode_token(after, Page.parse(request, "", "", "", "", "False", "create_time")._scope)
    await expect_refusal(api.audit.ListAuditEntries(request), INVALID, "INVALID_PAGE_TOKEN")


@pytest.mark.both_databases
async def test_a_watch_follows_changes_and_refusals_alike(server: Served, api: Api) -> None:
    await acme.organization(api)
    watch = api.audit.WatchAuditEntries(audit_pb2.WatchAuditEntriesRequest(parent="acme"))
    seen = list((await watch.read()).entries)

    async def until(count: int) -> None:
        while len(seen) < count:
            seen.extend((await watch.read()).entries)

    async with acme.person(server, api, "ann", ("acme", READ)) as ann:
        changes = [acme.blob(api, f"acme/blob-{number}") for number in range(10)]
        refusals = [expect_refusal(acme.blob(ann, "acme/mine"), DENIED, "PERMISSION_DENIED") for _ in range(10)]
        await asyncio.gather(*changes, *refusals)
    await until(22)
    watch.cancel()
    assert seen == await acme.entries(api, "acme")
    assert sum(entry.code == "OK" for entry in seen) == 12


async def test_a_watch_ends_when_the_admin_is_one_no_longer(server: Served, api: Api) -> None:
    await acme.organization(api)
    async with acme.person(server, api, "ann", ("acme", ADMIN)) as ann:
        watch = ann.audit.WatchAuditEntries(audit_pb2.WatchAuditEntriesRequest(parent="acme"))
        assert (await watch.read()).entries
        demote = member_pb2.UpdateMemberRequest(parent="acme", user="@ann", role=WRITE)
        await api.members.UpdateMember(demote)
        await expect_refusal(read_to_end(watch), DENIED, "PERMISSION_DENIED")
        await acme.update_user(api, "@ann", administrator=True)
        await until(lambda: acme.is_administrator(ann))
        everything = ann.audit.WatchAuditEntries(audit_pb2.WatchAuditEntriesRequest(parent="-"))
        assert (await everything.read()).entries
        await acme.update_user(api, "@ann", administrator=False)
        await expect_refusal(read_to_end(everything), DENIED, "PERMISSION_DENIED")


async def test_an_idle_watch_says_that_it_is_current(tmp_path: Path, database_url: str) -> None:
    async with (
        served(tmp_path / "data", database_url, progress_seconds=0.1) as server,
        connected(server.address, server.admin_key) as api,
    ):
        await acme.organization(api)
        watch = api.audit.WatchAuditEntries(audit_pb2.WatchAuditEntriesRequest(parent="-"))
        assert [entry.sequence for entry in (await watch.read()).entries] == [1, 2]
        message = await watch.read()
        assert (list(message.entries), message.progress.sequence) == ([], 2)
        watch.cancel()


async def test_executions_are_entered_by_those_who_start_and_stop_them(api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    await api.put(flows.delay(60))
    session = await acme.session(api, "acme/pipeline@draft")
    start = execution_pb2.StartExecutionRequest(session=session.id, spec={"definition": "workflow"})
    execution = (await api.executions.StartExecution(start)).execution
    for _ in range(2):
        await api.executions.StopExecution(execution_pb2.StopExecutionRequest(execution=execution.id))
    assert await methods(api, "acme/pipeline") == [
        "CreateBlob",
        "PutDefinition",
        "CreateSession",
        "StartExecution",
        "StopExecution",
        "StopExecution",
    ]
    entry = await last(api)
    assert (entry.resource_type, entry.resource) == ("execution", execution.id)


async def test_a_public_blobs_readers_are_not_entered(api: Api, anonymous: Api) -> None:
    await acme.organization(api)
    await acme.blob(api, visibility=PUBLIC)
    before = await acme.entries(api)
    await acme.get_blob(anonymous)
    assert await acme.entries(api) == before
    await expect_refusal(acme.get_revision(anonymous, "acme/pipeline@3"), UNAUTHENTICATED, "UNAUTHENTICATED")
