"""Invocations: one type's row and another type's execution in one transaction, on behalf of whoever may."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import acme
import flows
import grpc
import joining
import pytest
import stranger_notes
from blobhub.v1 import api_key_pb2, execution_pb2, member_pb2, session_pb2
from blobhub_client import get_value
from blobhub_server.blobtypes.access import Place, Role
from blobhub_server.blobtypes.capabilities import Invocation
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from blobhub_server.errors import BlobHubError, InvalidValue, NotFound, PermissionDenied
from blobhub_server.workflow.errors import CauseReused
from blobhub_server.workflow.invocations import Invocations
from calling import ask
from databases import collected, select
from google.rpc import error_details_pb2
from served import Api, Served, connected, served
from several_servers import inbox

NOTES, PIPELINE = "acme/notes", "acme/pipeline"
RUNS = "SELECT id, note, execution_id FROM note_runs"
LEFT = ("SELECT count(*) FROM executions", "SELECT count(*) FROM sessions", "SELECT count(*) FROM note_runs")


@pytest.fixture
async def hub(api: Api) -> Api:
    """A client of a server with a workflow and notes."""
    await acme.organization(api)
    await acme.blob(api, PIPELINE)
    await api.put(flows.code("set_data_output('result', inputs.given)"), revision=f"{PIPELINE}@draft")
    await acme.blob(api, NOTES, "stranger.notes")
    for name, text in (("milk", "remember the milk"), ("blank", "")):
        await ask(api, "PutNote", revision=f"{NOTES}@draft", name=name, text=text)
    return api


async def run(api: Api, **fields: object):
    """Run a note."""
    asked = {"name": "milk", "workflow": f"{PIPELINE}@draft", "definition": "workflow"} | fields
    return await ask(api, "RunNote", revision=f"{NOTES}@draft", **asked)


async def left(server: Served) -> list[int]:
    """How many executions, sessions and runs of notes there are."""
    return [(await select(server.settings.url, query))[0][0] for query in LEFT]


async def ended(api: Api, execution_id: str) -> execution_pb2.Execution:
    """An execution, once it has ended."""
    request = execution_pb2.WatchExecutionRequest(execution=execution_id)
    async for _ in api.executions.WatchExecution(request):
        pass
    return (await api.executions.GetExecution(execution_pb2.GetExecutionRequest(execution=execution_id))).execution


async def test_a_note_that_is_run_leaves_its_row_and_an_execution(hub: Api, server: Served) -> None:
    made = await run(hub, input="given", workflow=f"{PIPELINE}@default")
    execution = await ended(hub, made.execution_id)
    assert execution.state == execution_pb2.EXECUTION_STATE_COMPLETED
    assert execution.result.string_value == "remember the milk"
    assert execution.session_id == made.session_id
    assert await select(server.settings.url, RUNS) == [(made.run_id, "milk", made.execution_id)]
    again = await run(hub)
    assert again.session_id == made.session_id, "the session of that alias is used again"
    assert await left(server) == [2, 1, 2]


async def test_what_is_kept_of_a_run_is_read_by_its_id(hub: Api) -> None:
    """The kind of resource is the stranger's own; who may read it, the access matrix tries."""
    made = await run(hub)
    found = (await ask(hub, "GetNoteRun", note_run=made.run_id)).run
    draft = await acme.get_revision(hub, f"{NOTES}@draft")
    assert (found.id, found.note, found.execution_id) == (made.run_id, "milk", made.execution_id)
    assert (found.blob_id, found.revision_id) == (draft.blob_id, draft.id)
    absent = ask(hub, "GetNoteRun", note_run=str(uuid.uuid4()))
    await expect_refusal(absent, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_a_revision_whose_note_was_run_stays_and_its_blob_goes_only_with_the_runs(hub: Api, server: Served) -> None:
    draft = await acme.get_revision(hub, f"{NOTES}@draft")
    made = await run(hub)
    listed = (await ask(hub, "GetRevisionDependents", revision=draft.id)).dependents
    assert [(item.kind, item.count, list(item.ids)) for item in listed if item.count][-1] == (
        "runs of notes",
        1,
        [made.run_id],
    )
    refusal = grpc.StatusCode.FAILED_PRECONDITION, "NOT_EMPTY"
    error = await expect_refusal(acme.delete_blob(hub, NOTES), *refusal)
    assert "1 runs of notes" in error.details()
    await acme.delete_blob(hub, NOTES, cascade=True)
    await collected(server.settings.url)
    assert await select(server.settings.url, RUNS) == []


async def test_a_call_made_again_runs_the_note_once(hub: Api, server: Served) -> None:
    id_ = str(uuid.uuid4())
    assert await run(hub, request_id=id_) == await run(hub, request_id=id_)
    assert await left(server) == [1, 1, 1]


async def test_the_row_and_the_execution_are_both_there_or_neither(
    hub: Api, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(stranger_notes.store, "insert", fails)
        await expect_refusal(run(hub), grpc.StatusCode.INTERNAL, "INTERNAL")
    assert await left(server) == [0, 0, 0]
    await ended(hub, (await run(hub)).execution_id)


@pytest.mark.either_database
@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"definition": "none"}, "NOT_FOUND", "NOT_FOUND"),
        ({"workflow": f"{PIPELINE}@7"}, "NOT_FOUND", "NOT_FOUND"),
        ({"workflow": f"{NOTES}@draft"}, "FAILED_PRECONDITION", "WRONG_BLOB_TYPE"),
        ({"workflow": "acme/none@draft"}, "PERMISSION_DENIED", "PERMISSION_DENIED"),
        ({"workflow": "?"}, "INVALID_ARGUMENT", "INVALID_REFERENCE"),
        ({"input": "none"}, "INVALID_ARGUMENT", "INVALID_VALUE"),
        ({"name": "blank"}, "FAILED_PRECONDITION", "EMPTY_NOTE"),
    ],
)
async def test_what_cannot_be_invoked_is_refused_and_nothing_is_left(
    hub: Api, server: Served, fields: dict[str, str], code: str, reason: str
) -> None:
    await expect_refusal(run(hub, **fields), grpc.StatusCode[code], reason)
    assert await left(server) == [0, 0, 0]


@pytest.mark.either_database
async def test_a_strangers_error_has_the_strangers_domain(hub: Api) -> None:
    error = await expect_refusal(run(hub, name="blank"), grpc.StatusCode.FAILED_PRECONDITION, "EMPTY_NOTE")
    info = error_details_pb2.ErrorInfo()
    assert unpack(error, info)
    assert (info.domain, dict(info.metadata)) == ("stranger.notes", {"note": "blank"})


async def test_a_note_is_run_on_behalf_of_who_calls_and_must_be_able_to_write_to_both(hub: Api, server: Served) -> None:
    await acme.user(hub, "ann")
    await acme.member(hub, NOTES, "ann", role="ROLE_WRITE")
    key = (await acme.key(hub, "@ann", role="ROLE_WRITE")).key
    async with connected(server.address, key) as ann:
        words = []
        for workflow in (f"{PIPELINE}@draft", "acme/none@draft"):
            denied = await expect_refusal(
                run(ann, workflow=workflow), grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"
            )
            words.append(denied.details())
        assert words[0] == words[1], "absent and forbidden read the same"
        await acme.member(hub, PIPELINE, "ann", role="ROLE_READ")
        await expect_refusal(run(ann), grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        request = member_pb2.UpdateMemberRequest(parent=PIPELINE, user="@ann", role="ROLE_WRITE")
        await hub.members.UpdateMember(request)
        await ended(hub, (await run(ann)).execution_id)
    scoped = (await acme.key(hub, NOTES, role="ROLE_WRITE")).key
    async with connected(server.address, scoped) as notes:
        await expect_refusal(run(notes), grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_a_session_that_is_closed_is_followed_by_a_new_one_of_its_alias(hub: Api) -> None:
    first = await run(hub)
    await ended(hub, first.execution_id)
    await hub.sessions.CloseSession(session_pb2.CloseSessionRequest(session=first.session_id))
    second = await run(hub)
    assert second.session_id != first.session_id
    found = await hub.sessions.GetSession(session_pb2.GetSessionRequest(session=second.session_id))
    assert found.session.alias == "notes"


class Inside:
    """A server seen from inside: its invocations, a client, and what an invocation is asked with."""

    def __init__(self, opened: joining.Opened, api: Api, actor_id: str) -> None:
        self.host = opened.host
        self.definitions = opened.definitions
        self.invocations = Invocations(opened.host, opened.definitions, opened.runtime, inbox(opened))
        self.api = api
        self.asked = Invocation(
            cause=str(uuid.uuid4()), actor_id=actor_id, revision=f"{PIPELINE}@draft", definition="workflow"
        )

    async def invoke(self, **fields: object):
        """Invoke in a transaction of its own."""
        asked = replace(self.asked, **fields)
        return await self.host.db.transact(lambda tx: self.invocations.invoke(tx, asked))

    async def role(self, actor_id: str, place: Place) -> Role:
        async with self.host.db.read() as tx:
            return await self.host.actors.role(tx, actor_id, place)


@pytest.fixture
async def inside(tmp_path, database_url) -> AsyncIterator[Inside]:
    with joining.opening() as found:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            await acme.organization(api)
            await acme.blob(api, PIPELINE)
            await api.put(flows.steps(), revision=f"{PIPELINE}@draft")
            actor_id = (await acme.key(api, PIPELINE, role="ROLE_WRITE")).api_key.id
            yield Inside(found[0], api, actor_id)


async def test_a_cause_invoked_by_many_at_once_makes_one_execution_and_one_session(inside: Inside) -> None:
    for session in ("", "fixed"):
        cause = str(uuid.uuid4())
        made = await asyncio.gather(*(inside.invoke(cause=cause, session=session) for _ in range(8)))
        assert len(set(made)) == 1
    sessions = await inside.api.sessions.ListSessions(session_pb2.ListSessionsRequest(blob=PIPELINE))
    assert [item.alias for item in sessions.sessions] == ["", "fixed"]


@pytest.mark.either_database
@pytest.mark.parametrize("session", ["", "fixed"])
async def test_a_cause_of_another_blob_is_refused_and_not_answered_with_its_execution(inside: Inside, session: str) -> None:
    await acme.organization(inside.api, "other")
    await acme.blob(inside.api, "other/pipeline")
    await inside.api.put(flows.steps(), revision="other/pipeline@draft")
    there = {
        "revision": "other/pipeline@draft",
        "actor_id": (await acme.key(inside.api, "other", role="ROLE_WRITE")).api_key.id,
        "session": session,
    }
    made = await inside.invoke(session=session)
    with pytest.raises(CauseReused):
        await inside.invoke(**there)
    again = await inside.invoke(**there, cause=str(uuid.uuid4()))
    with pytest.raises(CauseReused):
        await inside.invoke(**there)
    assert await inside.invoke(session=session) == made
    sessions = await inside.api.sessions.ListSessions(session_pb2.ListSessionsRequest(blob="other/pipeline"))
    assert [item.id for item in sessions.sessions] == [again.session_id], "a refusal leaves no session"


async def test_a_cause_that_comes_for_two_blobs_at_once_starts_one_execution(inside: Inside) -> None:
    await acme.blob(inside.api, "acme/other")
    await inside.api.put(flows.steps(), revision="acme/other@draft")
    actor_id = (await acme.key(inside.api, "acme", role="ROLE_WRITE")).api_key.id
    for session in ("", "fixed"):
        cause = str(uuid.uuid4())
        blobs = (PIPELINE, "acme/other") * 4
        invocations = (
            inside.invoke(cause=cause, actor_id=actor_id, revision=f"{blob}@draft", session=session) for blob in blobs
        )
        made = await asyncio.gather(*invocations, return_exceptions=True)
        started = [item for item in made if not isinstance(item, CauseReused)]
        assert (len(started), len(set(started))) == (4, 1)


@pytest.fixture
def loads(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many reading transactions were open, for each time that a definition was read and compiled."""
    found: list[int] = []
    read, load, reading = inside.host.db.read, inside.definitions.load, 0

    @asynccontextmanager
    async def counted_read():
        nonlocal reading
        async with read() as tx:
            reading += 1
            try:
                yield tx
            finally:
                reading -= 1

    async def counted_load(digest: str):
        found.append(reading)
        return await load(digest)

    monkeypatch.setattr(inside.host.db, "read", counted_read)
    monkeypatch.setattr(inside.definitions, "load", counted_load)
    return found


async def test_preparing_reads_and_compiles_while_no_transaction_waits(inside: Inside, loads: list[int]) -> None:
    await inside.invocations.prepare(inside.asked)
    assert loads == [0]


@pytest.mark.either_database
@pytest.mark.parametrize(
    "fields",
    [
        {"actor_id": str(uuid.uuid4())},
        {"actor_id": ""},
        {"definition": "none"},
        {"revision": f"{PIPELINE}@7"},
        {"revision": "?"},
    ],
)
async def test_preparing_does_nothing_for_what_would_be_refused(inside: Inside, loads: list[int], fields) -> None:
    await inside.invocations.prepare(replace(inside.asked, **fields))
    assert loads == []
    with pytest.raises(BlobHubError):
        await inside.invoke(**fields)


@pytest.mark.either_database
async def test_without_an_alias_each_invocation_gets_a_session_of_its_own(inside: Inside) -> None:
    made = [await inside.invoke(cause=str(uuid.uuid4())) for _ in range(3)]
    assert len({item.session_id for item in made}) == 3


async def test_the_inputs_of_an_invocation_come_back_equal(inside: Inside) -> None:
    value = {"": [2**63 - 1, -(2**63), 2**64 - 1, -0.0, 1e308, None, {}]}
    await inside.api.put(flows.code("set_data_output('result', inputs.given)"))
    made = await inside.invoke(inputs={"given": value})
    execution = await ended(inside.api, made.execution_id)
    assert repr(get_value(execution.input_data[0])) == repr(get_value(execution, "result")) == repr(value)


@pytest.mark.either_database
@pytest.mark.parametrize(
    "value", [2**64, {1, 2}, "\ud800", [[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]], "x" * (1 << 20)]
)
async def test_an_input_beyond_the_bounds_of_a_value_is_refused(inside: Inside, value: object) -> None:
    with pytest.raises(InvalidValue, match=r"spec.input_data\[given\]: must"):
        await inside.invoke(inputs={"given": value})


async def test_a_refusal_undoes_what_was_made_for_it_and_the_transaction_goes_on(inside: Inside) -> None:
    """So whoever asked can record it."""
    for fields, kind in (
        ({"definition": "none"}, NotFound),
        ({"inputs": {"none": 1}}, InvalidValue),
        ({"inputs": {"none": float("nan")}}, InvalidValue),
        ({"actor_id": str(uuid.uuid4())}, PermissionDenied),
    ):
        asked = replace(inside.asked, cause=str(uuid.uuid4()))
        async with inside.host.db.write() as tx:
            with pytest.raises(kind):
                await inside.invocations.invoke(tx, replace(asked, **fields))
            await inside.invocations.invoke(tx, replace(asked, session="kept"))
    sessions = await inside.api.sessions.ListSessions(session_pb2.ListSessionsRequest(blob=PIPELINE))
    assert [item.alias for item in sessions.sessions] == ["kept"]


async def test_of_the_invocations_of_a_transaction_each_is_answered_by_itself(inside: Inside) -> None:
    first = await inside.invoke()
    fields: dict[str, dict[str, object]] = {
        "one": {"session": "shared"},
        "two": {"session": "shared"},
        "three": {},
        "four": {},
        "again": {"cause": first.cause},
        "NOT_FOUND": {"definition": "none"},
        "INVALID_VALUE": {"inputs": {"none": 1}, "session": "refused"},
        "PERMISSION_DENIED": {"actor_id": str(uuid.uuid4())},
        "INVALID_REFERENCE": {"revision": "?"},
    }
    asked = {name: replace(inside.asked, **{"cause": str(uuid.uuid4())} | given) for name, given in fields.items()}
    async with inside.host.db.write() as tx:
        answers = await inside.invocations.invoke_all(tx, [*asked.values()])
    found = {name: answers[invocation.cause] for name, invocation in asked.items()}
    refused = {name: answer.reason for name, answer in found.items() if isinstance(answer, BlobHubError)}
    assert refused == {name: name for name in fields if name.isupper()}
    assert found["again"] == first
    assert found["one"].session_id == found["two"].session_id
    assert len({found[name].session_id for name in ("one", "three", "four", "again")}) == 4
    assert len({found[name].execution_id for name in ("one", "two", "three", "four", "again")}) == 5
    sessions = await inside.api.sessions.ListSessions(session_pb2.ListSessionsRequest(blob=PIPELINE))
    assert [item.alias for item in sessions.sessions] == ["", "shared", "", ""], "a refusal leaves no session"


async def test_who_may_act_is_asked_as_things_are_now(inside: Inside) -> None:
    blob = await acme.get_blob(inside.api, PIPELINE)
    place, elsewhere = Place(organization_id=blob.organization_id, blob_id=blob.id), Place(organization_id=str(uuid.uuid4()))
    short = await acme.key(inside.api, PIPELINE, role="ROLE_WRITE", expire_time=acme.after(0.3))
    user = await acme.user(inside.api, "ann")
    await acme.member(inside.api, PIPELINE, "ann", role="ROLE_WRITE")
    reader = (await acme.key(inside.api, "@ann", role="ROLE_READ")).api_key.id
    scoped = inside.asked.actor_id
    assert await inside.role(scoped, place) is Role.WRITE
    assert await inside.role(scoped, elsewhere) is Role.NONE
    assert await inside.role(user.id, place) is Role.WRITE
    assert await inside.role(reader, place) is Role.READ, "a personal key acts as its user as far as it lets that count"
    await acme.update_user(inside.api, "@ann", disabled=True)
    assert [await inside.role(id_, place) for id_ in (user.id, reader)] == [Role.NONE, Role.NONE]
    await inside.api.api_keys.RevokeApiKey(api_key_pb2.RevokeApiKeyRequest(api_key=scoped))
    assert await inside.role(scoped, place) is Role.NONE
    async with asyncio.timeout(60):
        while await inside.role(short.api_key.id, place) is not Role.NONE:
            await asyncio.sleep(0.05)
    assert await inside.role(str(uuid.uuid4()), place) is Role.NONE
