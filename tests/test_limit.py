"""Limits: each holds to the last one, whoever else is adding; where they come from. Whom they bind is in test_bounds.py."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import acme
import flows
import grpc
import pytest
import schedules
from blobhub.v1 import (
    access_pb2,
    api_key_pb2,
    blob_pb2,
    execution_pb2,
    limit_pb2,
    member_pb2,
    organization_pb2,
    revision_pb2,
    session_pb2,
    user_pb2,
)
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from calling import ask
from databases import select
from google.rpc import error_details_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from scale import SHARED_FIXTURES, scaled
from served import WORKFLOW, Api, Served, connected
from stranger.notes.v1 import notes_pb2, notes_pb2_grpc

DOC = Path(__file__).resolve().parent.parent / "docs" / "limits.md"

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
DENIED = grpc.StatusCode.PERMISSION_DENIED
OF_SIGNALS = ("workflow.signal_bytes_per_blob", "workflow.signals_per_blob")
ELSEWHERE = {"blob.open_operations", "onnx.model_bytes", "onnx.uploads_per_blob", *OF_SIGNALS}
ELSEWHERE |= {"workflow.log_bytes", "workflow.open_tasks", "workflow.children_per_execution", "workflow.execution_depth"}
"""They are in test_operation_life, test_model_refused, test_log_bytes, test_signal_by_key, test_task_limit, test_execute."""
DEFAULT, ORGANIZATION, BLOB = (
    limit_pb2.LIMIT_SOURCE_DEFAULT,
    limit_pb2.LIMIT_SOURCE_ORGANIZATION,
    limit_pb2.LIMIT_SOURCE_BLOB,
)


@dataclass
class House:
    """What the limits are tried on: a workflow with a snapshot, a draft and a session, and a blob of notes."""

    api: Api
    draft_id: str
    session_id: str

    async def note(self, name: str, text: str = "", draft: str = "acme/notes@draft") -> None:
        request = notes_pb2.PutNoteRequest(revision=draft, name=name, text=text)
        await notes_pb2_grpc.NotesServiceStub(self.api.channel).PutNote(request)

    async def user(self, name: str) -> None:
        await self.api.users.CreateUser(user_pb2.CreateUserRequest(name=name))


@pytest.fixture
async def house(api: Api) -> House:
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    for alias, type_ in (("pipeline", WORKFLOW), ("notes", "stranger.notes"), ("nightly", schedules.SCHEDULER)):
        await api.blobs.CreateBlob(blob_pb2.CreateBlobRequest(organization="acme", alias=alias, type=type_))
    await api.put(flows.steps(2))
    await api.publish()
    draft = await api.revisions.CreateRevision(revision_pb2.CreateRevisionRequest(blob="acme/pipeline"))
    session = await api.sessions.CreateSession(session_pb2.CreateSessionRequest(revision="acme/pipeline@1"))
    return House(api=api, draft_id=draft.revision.id, session_id=session.session.id)


async def limits(api: Api, scope: str) -> dict[str, limit_pb2.Limit]:
    answer = await api.limits.GetLimits(limit_pb2.GetLimitsRequest(parent=scope))
    assert [limit.name for limit in answer.limits] == sorted(limit.name for limit in answer.limits)
    return {limit.name: limit for limit in answer.limits}


async def set_limit(api: Api, scope: str, name: str, value: int | None) -> limit_pb2.Limit:
    mask = {"paths": ["value"]}
    request = limit_pb2.UpdateLimitRequest(parent=scope, name=name, update_mask=mask, value=value)
    answer = await api.limits.UpdateLimit(request)
    assert answer.limit == (await limits(api, scope))[name], "the answer says what is held, as GetLimits does"
    return answer.limit


async def blob(house: House, number: int) -> None:
    request = blob_pb2.CreateBlobRequest(organization="acme", alias=f"blob-{number}", type=WORKFLOW)
    await house.api.blobs.CreateBlob(request)


async def member(house: House, number: int) -> None:
    """On the organization and on a blob in turn."""
    await house.user(f"user-{number}")
    scope = ("acme", "acme/pipeline")[number % 2]
    request = member_pb2.CreateMemberRequest(parent=scope, user=f"@user-{number}", role=access_pb2.ROLE_READ)
    await house.api.members.CreateMember(request)


async def api_key(house: House, number: int) -> None:
    """For the organization and for a blob in turn."""
    scope = ("acme", "acme/pipeline")[number % 2]
    await house.api.api_keys.CreateApiKey(api_key_pb2.CreateApiKeyRequest(parent=scope, role=access_pb2.ROLE_READ))


async def revision(house: House, number: int) -> None:
    await house.api.revisions.CreateRevision(revision_pb2.CreateRevisionRequest(blob="acme/pipeline"))


async def definition(house: House, number: int) -> None:
    await house.api.put(flows.steps(2), revision=house.draft_id, alias=f"definition-{number}")


async def schedule(house: House, number: int) -> None:
    await schedules.create(house.api, f"schedule-{number}")


async def session(house: House, number: int) -> None:
    await house.api.sessions.CreateSession(session_pb2.CreateSessionRequest(revision="acme/pipeline@1"))


async def execution(house: House, number: int) -> None:
    request = execution_pb2.StartExecutionRequest(session=house.session_id, spec={"definition": "workflow"})
    await house.api.executions.StartExecution(request)


async def note(house: House, number: int) -> None:
    await house.note(f"note-{number}")


async def byte(house: House, number: int) -> None:
    await house.note(f"note-{number}", chr(ord("a") + number))


ADDING: list[tuple[str, str, Callable[[House, int], Awaitable[None]]]] = [
    ("organization.api_keys", "acme", api_key),
    ("organization.blobs", "acme", blob),
    ("organization.members", "acme", member),
    ("blob.bytes", "acme/notes", byte),
    ("blob.revisions", "acme/pipeline", revision),
    ("notes.notes_per_revision", "acme/notes", note),
    ("scheduler.schedules_per_revision", "acme/nightly", schedule),
    ("workflow.definitions_per_revision", "acme/pipeline", definition),
    ("workflow.executions_per_session", "acme/pipeline", execution),
    ("workflow.sessions_per_blob", "acme/pipeline", session),
]


def check_refusal(error: Any, name: str, value: int) -> str:
    """A refusal says which limit it is and how much may be held; return the id of what is full."""
    assert isinstance(error, grpc.aio.AioRpcError)
    assert error.code() is EXHAUSTED
    info, quota = error_details_pb2.ErrorInfo(), error_details_pb2.QuotaFailure()
    assert unpack(error, info)
    assert unpack(error, quota)
    assert (info.reason, info.metadata["limit"], info.metadata["value"]) == ("LIMIT_EXCEEDED", name, str(value))
    assert [violation.subject for violation in quota.violations] == [info.metadata["resource"]]
    return info.metadata["resource"]


@pytest.mark.parametrize(("name", "scope", "add"), ADDING, ids=[name for name, _, _ in ADDING])
async def test_a_limit_lets_in_what_it_says_and_no_more(house: House, name: str, scope: str, add) -> None:
    """Twenty at a time, with room for five; then one by one."""
    held = (await limits(house.api, scope))[name].held
    await set_limit(house.api, scope, name, held + 5)
    tried = await asyncio.gather(*(add(house, number) for number in range(20)), return_exceptions=True)
    refusals = [error for error in tried if error is not None]
    assert len(refusals) == 15
    assert len({check_refusal(error, name, held + 5) for error in refusals}) == 1
    assert (await limits(house.api, scope))[name].held == held + 5
    await set_limit(house.api, scope, name, held + 6)
    await add(house, 20)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await add(house, 21)
    check_refusal(raised.value, name, held + 6)
    await set_limit(house.api, scope, name, None)
    await add(house, 22)
    assert (await limits(house.api, scope))[name].held == held + 7


async def test_every_limit_is_tried_here(house: House) -> None:
    found = (await limits(house.api, "acme")).items()
    settable = {name for name, limit in found if limit.source != limit_pb2.LIMIT_SOURCE_FIXED}
    assert settable == {name for name, _, _ in ADDING} | ELSEWHERE


async def test_a_value_comes_from_the_blob_else_the_organization_else_the_default(house: House) -> None:
    api, name = house.api, "workflow.definitions_per_revision"

    async def holds(scope: str) -> tuple[int, int]:
        limit = (await limits(api, scope))[name]
        return limit.value, limit.source

    assert await holds("acme") == await holds("acme/pipeline") == (100, DEFAULT)
    made = await set_limit(api, "acme", name, 7)
    assert (made.name, made.value, made.source) == (name, 7, ORGANIZATION)
    assert await holds("acme") == await holds("acme/pipeline") == (7, ORGANIZATION)
    assert (await set_limit(api, "acme/pipeline", name, 3)).source == BLOB
    assert (await holds("acme"), await holds("acme/pipeline")) == ((7, ORGANIZATION), (3, BLOB))
    assert (await set_limit(api, "acme", name, 1)).value == 1
    assert (await holds("acme"), await holds("acme/pipeline")) == ((1, ORGANIZATION), (3, BLOB))
    assert (await set_limit(api, "acme/pipeline", name, None)).source == ORGANIZATION
    assert await holds("acme/pipeline") == (1, ORGANIZATION)
    assert (await set_limit(api, "acme", name, None)).source == DEFAULT
    assert (await set_limit(api, "acme", name, None)).source == DEFAULT
    assert await holds("acme") == await holds("acme/pipeline") == (100, DEFAULT)


@pytest.mark.parametrize("scope", ["acme", "acme/pipeline"])
async def test_an_organizations_value_holds_for_its_blobs(house: House, scope: str) -> None:
    await set_limit(house.api, scope, "workflow.sessions_per_blob", 1)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await session(house, 0)
    made = await house.api.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/pipeline"))
    assert check_refusal(raised.value, "workflow.sessions_per_blob", 1) == made.blob.id
    await house.api.sessions.CloseSession(session_pb2.CloseSessionRequest(session=house.session_id))
    await session(house, 0)


async def test_what_is_held_is_counted_in_what_is_fullest(house: House) -> None:
    for number in range(3):
        await definition(house, number)
        await execution(house, number)
    await session(house, 0)
    held = {name: limit.held for name, limit in (await limits(house.api, "acme/pipeline")).items()}
    assert held == {
        "blob.bytes": len(flows.steps(2).encode()),
        "blob.revisions": 2,
        **dict.fromkeys(("workflow.children_per_execution", "workflow.execution_depth"), 0),
        "workflow.definitions_per_revision": 4,
        "workflow.executions_per_session": 3,
        "workflow.sessions_per_blob": 2,
    } | dict.fromkeys(["blob.open_operations", "credentials", "metadata.records_per_parent", *OF_SIGNALS], 0)
    of_organization = await limits(house.api, "acme")
    assert {name: limit.held for name, limit in of_organization.items() if limit.HasField("held")} == {
        **dict.fromkeys(["credentials", "organization.api_keys", "workflow.log_bytes", "workflow.open_tasks"], 0),
        "organization.blobs": 3,
        "organization.members": 1,
    }
    assert all(limit.description for limit in of_organization.values())


async def test_the_same_content_counts_once(house: House) -> None:
    await set_limit(house.api, "acme/notes", "blob.bytes", 10)
    await house.note("one", "12345")
    await house.note("two", "12345")
    await house.note("three", "67890")
    await expect_refusal(house.note("four", "x"), EXHAUSTED, "LIMIT_EXCEEDED")
    await house.note("four", "12345")
    await house.note("four", "67890")
    await house.note("four")
    await house.note("three", "678")
    await house.note("five", "ab")
    assert (await limits(house.api, "acme/notes"))["blob.bytes"].held == 10
    await expect_refusal(house.note("five", "abc"), EXHAUSTED, "LIMIT_EXCEEDED")


async def test_bytes_are_counted_over_all_drafts_at_once(house: House) -> None:
    await house.note("one", ".")
    await house.api.publish("acme/notes")
    branch = revision_pb2.CreateRevisionRequest(blob="acme/notes")
    drafts = [(await house.api.revisions.CreateRevision(branch)).revision.id for _ in range(10)]
    await set_limit(house.api, "acme/notes", "blob.bytes", 3)
    puts = (house.note(f"note-{n}", chr(ord("a") + n), draft) for n, draft in enumerate(drafts))
    tried = await asyncio.gather(*puts, return_exceptions=True)
    assert sum(error is None for error in tried) == 2
    assert (await limits(house.api, "acme/notes"))["blob.bytes"].held == 3
    for draft in drafts:
        await house.note("two", ".", draft)


CHANGES = st.lists(
    st.tuples(st.sampled_from(["put", "put", "put", "delete", "commit", "branch", "discard"]), *[st.integers(0, 2)] * 3),
    min_size=5,
    max_size=25,
)


@settings(max_examples=scaled(12, least=4), deadline=None, suppress_health_check=SHARED_FIXTURES)
@given(changes=CHANGES)
async def test_what_is_counted_is_what_the_revisions_hold(server: Served, api: Api, changes: list[tuple[Any, ...]]) -> None:
    """The counters keep up, whatever is put, replaced, removed, branched and discarded, in however many revisions."""
    with suppress(grpc.aio.AioRpcError):  # it is there from the second round on
        await acme.organization(api)
    blob = await acme.blob(api, f"acme/b-{uuid.uuid4().hex[:12]}")
    for change in changes:
        revisions = (await ask(api, "ListRevisions", blob=blob.id)).revisions
        with suppress(grpc.aio.AioRpcError):  # of the wrong phase, in use, or not there
            await changed(api, revisions, *change)
    held = await limits(api, blob.id)
    theirs = f"FROM entries e JOIN revisions r ON r.id = e.revision_id WHERE r.blob_id = '{blob.id}'"
    contents = await select(server.settings.url, f"SELECT DISTINCT e.digest, e.size {theirs}")
    counts = await select(server.settings.url, f"SELECT count(*) {theirs} GROUP BY e.revision_id")
    assert held["blob.bytes"].held == sum(size for _, size in contents)
    assert held["workflow.definitions_per_revision"].held == max((count for (count,) in counts), default=0)


async def changed(api: Api, revisions: Any, what: str, which: int, name: int, size: int) -> None:
    """Change one of the revisions."""
    revision = revisions[which % len(revisions)].id
    match what:
        case "put":
            await api.put(flows.steps(size + 1), revision=revision, alias=f"d-{name}")
        case "delete":
            await ask(api, "DeleteDefinition", definition=f"{revision}/d-{name}")
        case "branch":
            await ask(api, "CreateRevision", blob=revisions[0].blob_id, base_revision=revision)
        case "commit":
            await ask(api, "CommitRevision", revision=revision)
        case "discard":
            await ask(api, "DiscardRevision", revision=revision)


async def test_what_is_held_stays_and_can_be_replaced(house: House) -> None:
    for name in ("workflow.definitions_per_revision", "workflow.executions_per_session", "blob.revisions"):
        await set_limit(house.api, "acme/pipeline", name, 0)
    await house.api.put(flows.steps(3), revision=house.draft_id)
    for add in (definition, execution, revision):
        await expect_refusal(add(house, 0), EXHAUSTED, "LIMIT_EXCEEDED")
    held = await limits(house.api, "acme/pipeline")
    assert (held["blob.revisions"].held, held["workflow.definitions_per_revision"].held) == (2, 1)


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ("acme", "organization.nothing"),
        ("acme", "Organization.blobs"),
        ("acme/pipeline", "organization.blobs"),
        ("acme/pipeline", "notes.notes_per_revision"),
        ("acme/notes", "workflow.sessions_per_blob"),
    ],
)
async def test_there_is_no_such_limit(house: House, scope: str, name: str) -> None:
    for value in (1, None):
        await expect_refusal(set_limit(house.api, scope, name, value), INVALID, "INVALID_VALUE")
    assert name not in await limits(house.api, scope)


async def test_admins_set_up_to_what_would_hold_otherwise(house: House, server: Served) -> None:
    api, name = house.api, "workflow.sessions_per_blob"
    await house.user("ann")
    role = member_pb2.CreateMemberRequest(parent="acme", user="@ann", role=access_pb2.ROLE_ADMIN)
    await api.members.CreateMember(role)
    request = api_key_pb2.CreateApiKeyRequest(parent="@ann", role=access_pb2.ROLE_ADMIN)
    key = (await api.api_keys.CreateApiKey(request)).key
    async with connected(server.address, key) as ann:
        await expect_refusal(set_limit(ann, "acme", name, 10_001), INVALID, "INVALID_VALUE")
        assert (await set_limit(ann, "acme", name, 10_000)).source == ORGANIZATION
        assert (await set_limit(ann, "acme", name, 20)).value == 20
        await expect_refusal(set_limit(ann, "acme/pipeline", name, 21), INVALID, "INVALID_VALUE")
        assert (await set_limit(ann, "acme/pipeline", name, 20)).source == BLOB
        assert (await set_limit(ann, "acme", name, 10_000)).value == 10_000
        assert (await set_limit(ann, "acme/pipeline", name, 21)).value == 21
        assert (await set_limit(api, "acme/pipeline", name, 1 << 62)).value == 1 << 62
        assert (await set_limit(ann, "acme/pipeline", name, 10_001)).value == 10_001
        assert (await set_limit(ann, "acme/pipeline", name, None)).value == 1 << 62


async def test_limits_are_read_with_a_role_and_set_by_admins(house: House, server: Served, anonymous: Api) -> None:
    request = api_key_pb2.CreateApiKeyRequest(parent="acme", role=access_pb2.ROLE_WRITE)
    key = (await house.api.api_keys.CreateApiKey(request)).key
    async with connected(server.address, key) as writer:
        assert (await limits(writer, "acme")).keys() == (await limits(house.api, "acme")).keys()
        await expect_refusal(set_limit(writer, "acme", "blob.bytes", 1), DENIED, "PERMISSION_DENIED")
    await expect_refusal(limits(anonymous, "acme"), grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


async def test_setting_a_limit_twice_is_done_once(house: House) -> None:
    request = limit_pb2.UpdateLimitRequest(parent="acme", name="blob.bytes", value=5, request_id=str(uuid.uuid4()))
    first = await house.api.limits.UpdateLimit(request)
    await set_limit(house.api, "acme", "blob.bytes", 7)
    assert await house.api.limits.UpdateLimit(request) == first
    assert (await limits(house.api, "acme"))["blob.bytes"].value == 7
    request.value = 6
    await expect_refusal(house.api.limits.UpdateLimit(request), grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    await expect_refusal(set_limit(house.api, "acme", "blob.bytes", -1), INVALID, "INVALID_REQUEST")


async def test_the_page_lists_every_limit(house: House) -> None:
    """docs/limits.md says what the server does."""
    rows = [line.split("|")[1:4] for line in DOC.read_text().splitlines() if line.startswith("| `")]
    written = [(name.strip().strip("`"), counted.strip(), default.strip()) for name, counted, default in rows]
    served = (await limits(house.api, "acme")).values()
    assert written == [
        (limit.name, limit.description, f"{limit.value:,}")
        for limit in served
        if not limit.name.startswith("notes.") and limit.source != limit_pb2.LIMIT_SOURCE_FIXED
    ]
