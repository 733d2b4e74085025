"""Whatever is sent again under its `request_id` happens once and is answered the same: for every method that changes
something, over a network that loses requests and answers, two of the same at a time.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from typing import Any

import flows
import grpc
import model_uploads
import pytest
import schedules
from blobhub.v1 import audit_pb2, session_pb2
from blobhub_client import page
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.db.schema import metadata
from blobhub_server.ids import is_uuid
from calling import METHODS, ask, request_of, send
from databases import collected, select
from dropping import Dropping, Fate, dropping
from figures import Figure
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from methods import Method
from scale import scaled
from served import WORKFLOW, Api, Served, connected

CHANGES = {name: method for name, method in METHODS.items() if method.changes}
LIVES, IN_FLIGHT = scaled(38, least=4), 16
SHOWN_ONCE = {"key"}
"""Fields of answers that are empty when the answer comes again, as api_key.proto says."""


@pytest.fixture(autouse=True)
def operations_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have operations take so long that they are there to be cancelled."""
    monkeypatch.setenv("BLOBHUB_NOTES_SECONDS_PER_LINE", "3600")


class Caller:
    """Makes calls of methods that change something, and does not give up before each is answered.

    `lives` are the names of those it has led, `request_ids` those of all calls with their methods; `sent` counts how often
    anything was sent.
    """

    def __init__(self, api: Api, seed: int) -> None:
        self.api = api
        self.lives: list[str] = []
        self.request_ids: dict[str, str] = {}
        self.sent = 0
        self._random = random.Random(seed)

    async def __call__(self, name: str, /, **fields: Any) -> Any:
        """Make a call; its answer, and that to whatever is sent again, has to be the same."""
        method = CHANGES[name]
        request_id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        self.request_ids[request_id] = method.path
        return await self._made(method, request_of(method, **fields, request_id=request_id))

    async def _made(self, method: Method, request: Message) -> Any:
        return await self._once(method, request)

    async def _once(self, method: Method, request: Message) -> Any:
        self.sent += 1
        return _merged(await send(self.api, method, request))


def another(text: str) -> str:
    """Another text of the same form: the form is looked at before what is remembered."""
    if is_uuid(text):
        return str(uuid.UUID(int=uuid.UUID(text).int ^ 1))
    return text.replace("@", "x@", 1) if "@" in text[1:] else f"{text}x"


class Quiet(Caller):
    """Everything arrives. Then each request id is tried with another body, of which nothing may come."""

    async def _made(self, method: Method, request: Message) -> Any:
        answer = await self._once(method, request)
        other = type(request)()
        other.CopyFrom(request)
        field = next(field.name for field in method.input.fields if field.type == field.TYPE_STRING)
        setattr(other, field, another(getattr(request, field)))
        await expect_refusal(self._once(method, other), grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        return answer


class Hasty(Caller):
    """Sends everything eight times at once. All have to be answered the same."""

    async def _made(self, method: Method, request: Message) -> Any:
        answers = await asyncio.gather(*(self._once(method, request) for _ in range(8)))
        require_same(method, answers)
        return answers[0]


class Stubborn(Caller):
    """Sends again until there is an answer, every other time two of the same at once, and until there were two answers.

    All that the server has answered to a request has to be the same, whether it came through or not.
    """

    def __init__(self, api: Api, seed: int, proxy: Dropping) -> None:
        super().__init__(api, seed)
        self._proxy = proxy

    async def _made(self, method: Method, request: Message) -> Any:
        heard = self._proxy.heard[method.path, request.SerializeToString()]
        twice = self._random.random() < 0.5
        answer, *_ = await asyncio.gather(*[self._until_answered(method, request) for _ in range(1 + twice)])
        while len(heard) < 2:
            await self._until_answered(method, request)
        require_same(
            method, [_merged([GetMessageClass(method.output).FromString(data) for data in messages]) for messages in heard]
        )
        return answer

    async def _until_answered(self, method: Method, request: Message) -> Any:
        while True:
            try:
                return await self._once(method, request)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise AssertionError(f"{method.path}: {error.code().name}: {error.details()}") from error


def require_same(method: Method, answers: list[Any]) -> None:
    """All are the same, but for what is shown once."""
    for field in SHOWN_ONCE.intersection(method.output.fields_by_name):
        assert sum(getattr(item, field) != "" for item in answers) <= 1, f"{method.path} shows its {field} again"
        for item in answers:
            item.ClearField(field)
    for item in answers:
        assert item == answers[0], f"{method.path} is answered differently when it comes again"


def _merged(messages: list[Any]) -> Any:
    """A call's answer; of a stream, all of its events, and its execution as it ended, or all of its firings."""
    if len(messages) == 1:
        return messages[0]
    if "firings" in messages[0].DESCRIPTOR.fields_by_name:
        return type(messages[0])(firings=[firing for message in messages for firing in message.firings])
    merged = type(messages[0])(execution=messages[-1].execution)
    assert messages[0].execution.id == merged.execution.id
    for message in messages:
        merged.events.extend(message.events)
    return merged


async def live(call: Caller, name: str) -> None:
    """What an organization may go through: every method that changes something."""
    call.lives.append(name)
    await call("CreateOrganization", alias=f"{name}-old")
    await call("UpdateOrganization", organization=f"{name}-old", alias=name)
    await call("UpdateLimit", parent=name, name="organization.members", value=10)
    await people(call, name)
    await secrets(call, name)
    await workflow(call, name)
    await notes(call, name)
    await scheduler(call, name)
    await model_uploads.live(call, name)
    await call("CreateOrganization", alias=f"{name}-gone")
    await call("CreateBlob", organization=f"{name}-gone", alias="gone", type=WORKFLOW)
    await call("DeleteOrganization", organization=f"{name}-gone", cascade=True)


async def people(call: Caller, name: str) -> None:
    """A user comes, becomes a member, and is one no more."""
    await call("CreateUser", name=name)
    await call("UpdateUser", user=f"@{name}", update_mask={"paths": ["display_name"]}, display_name="Somebody")
    member = {"parent": name, "user": f"@{name}"}
    await call("CreateMember", **member, role="ROLE_READ")
    await call("UpdateMember", **member, role="ROLE_WRITE")
    await call("DeleteMember", **member)


async def secrets(call: Caller, name: str) -> None:
    """Keys and credentials are made, changed, and withdrawn."""
    key_id = (await call("CreateApiKey", parent=name, role="ROLE_READ")).api_key.id
    await call("UpdateApiKey", api_key=key_id, description="for reading")
    rotated = await call("RotateApiKey", api_key=key_id, grace={"seconds": 60})
    await call("RevokeApiKey", api_key=rotated.api_key.id)
    for alias in ("kept", "gone"):
        made = await call("CreateCredential", parent=name, alias=alias, type="test", body={"user": "nobody"})
        credential_id = made.credential.id
        await call("UpdateCredential", credential=credential_id, description="none yet")
    await call("DeleteCredential", credential=credential_id)


async def workflow(call: Caller, name: str) -> None:
    """A workflow blob: content, revisions, metadata, and what runs in it."""
    await call("CreateBlob", organization=name, alias="old", type=WORKFLOW)
    blob = f"{name}/workflow"
    await call("UpdateBlob", blob=f"{name}/old", alias="workflow")
    draft = f"{blob}@draft"
    for alias, document in (("quick-one", flows.steps()), ("slow-one", flows.delay(3600)), ("gone-one", flows.steps())):
        await call("PutDefinition", revision=draft, alias=alias, document=document)
    await call("DeleteDefinition", definition=f"{draft}/gone-one")
    await call("UpdateRevision", revision=draft, comment="The first")
    for key in ("kept", "gone"):
        await call("CreateMetadata", parent=draft, key=key, value={"number_value": 1})
        await call("UpdateMetadata", parent=draft, key=key, value={"number_value": 2})
    await call("DeleteMetadata", parent=draft, key="gone")
    commit = (await call("CommitRevision", revision=draft)).revision.id
    await call("PublishRevision", revision=commit)
    await call("CreateRevision", blob=blob)
    await call("DiscardRevision", revision=draft)
    await call("CreateRevision", blob=blob)
    second = (await call("CommitRevision", revision=draft)).revision.id
    await call("UpdateBlob", blob=blob, default_revision=second)
    await session(call, blob)


async def session(call: Caller, blob: str) -> None:
    """A session: objects, executions that end and that are stopped, and its own end."""
    session_id = (await call("CreateSession", revision=f"{blob}@1")).session.id
    for alias in ("kept", "gone"):
        await call("PutSessionObject", session=session_id, alias=alias, value={"string_value": alias})
    await call("DeleteSessionObject", session=session_id, alias="gone")
    started = (await call("StartExecution", session=session_id, spec={"definition": "slow-one"})).execution
    await call("RunExecution", session=session_id, spec={"definition": "quick-one"})
    await call("SignalExecution", execution=started.id, name="decision", key="7", value={"string_value": "approved"})
    await call("StopExecution", execution=started.id)
    await call("SendSignal", blob=blob, name="decision", key="8", value={"string_value": "rejected"})
    await call("CloseSession", session=session_id)


async def scheduler(call: Caller, name: str) -> None:
    """A scheduler: schedules are made, changed, switched and withdrawn."""
    await call("CreateBlob", organization=name, alias="nightly", type=schedules.SCHEDULER)
    target = {"revision": f"{name}/workflow", "definition": "quick-one"}
    for alias in ("kept", "gone"):
        spec = schedules.ONCE | {"invocation_target": target}
        await call("CreateSchedule", revision=f"{name}/nightly", alias=alias, spec=spec)
    kept = f"{name}/nightly@draft/kept"
    await call("UpdateSchedule", schedule=kept, spec={"description": "kept"})
    key_id = (await call("CreateApiKey", parent=name, role="ROLE_WRITE")).api_key.id
    await call("ReassignSchedule", schedule=kept, api_key=key_id)
    for method in ("PauseSchedule", "ResumeSchedule", "DisableSchedule", "EnableSchedule"):
        await call(method, schedule=kept)
    fired = (await call("TriggerSchedule", schedule=kept)).firing
    await call("CloseSession", session=fired.session_id)
    spec = schedules.DAILY | {"invocation_target": target | {"session": "backfilled"}}
    await call("CreateSchedule", revision=f"{name}/nightly", alias="daily", spec=spec)
    start, end = ({"seconds": 1_700_000_000 + days * 86_400} for days in (0, 3))
    made = await call("BackfillSchedule", schedule=f"{name}/nightly@draft/daily", start_time=start, end_time=end)
    await call("CloseSession", session=made.firings[0].session_id)
    await call("DeleteSchedule", schedule=f"{name}/nightly@draft/gone")


async def notes(call: Caller, name: str) -> None:
    """A blob of a plugged-in type, and one that is deleted."""
    for alias in ("notes", "gone"):
        await call("CreateBlob", organization=name, alias=alias, type="stranger.notes")
        await call("PutNote", revision=f"{name}/{alias}@draft", name="one", text="A note.")
        await call("UploadNote", revision=f"{name}/{alias}@draft", name="two", text="A note in one piece.")
    made = await call(
        "RunNote", revision=f"{name}/notes@draft", name="one", workflow=f"{name}/workflow", definition="quick-one"
    )
    await call("CloseSession", session=made.session_id)
    begun = (await call("CapitalizeNote", revision=f"{name}/notes@draft", name="one")).operation
    await call("CancelOperation", operation=begun.id)
    await call("DeleteBlob", blob=f"{name}/gone")


async def closed(api: Api, *names: str) -> None:
    """Return once the session of every life is closed."""
    for name in names:
        sessions = await api.sessions.ListSessions(session_pb2.ListSessionsRequest(blob=f"{name}/workflow"))
        for item in sessions.sessions:
            watch = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=item.id))
            assert [event.session_sequence for event in [event async for batch in watch for event in batch.events]] == list(
                range(1, item.last_session_sequence + 1)
            )


async def rows(server: Served) -> Counter[str]:
    """How many rows each table has, once what was deleted is collected."""
    await collected(server.settings.url)
    return Counter(
        {table.name: (await select(server.settings.url, f"SELECT count(*) FROM {table.name}"))[0][0]
         for table in metadata.sorted_tables}
    )  # fmt: skip


async def audited(api: Api) -> list[audit_pb2.AuditEntry]:
    """What calls have left in the audit log, which has no gaps."""
    request = audit_pb2.ListAuditEntriesRequest(parent="-", page_size=1000)
    entries = [entry async for entry in page(api.audit.ListAuditEntries, request)]
    assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
    return [entry for entry in entries if entry.method != "bootstrap"]


async def check(server: Served, api: Api, before: Counter[str], once: Counter[str], *callers: Caller) -> None:
    """So many lives have left what one leaves, and each of their calls has one entry in the audit log."""
    lives = [name for caller in callers for name in caller.lives]
    await closed(api, *lives)
    assert await rows(server) - before == Counter({table: number * len(lives) for table, number in once.items()})
    calls = {request_id: path for caller in callers for request_id, path in caller.request_ids.items()}
    found = [(entry.request_id, f"/{entry.method}", entry.code) for entry in await audited(api)]
    assert Counter(found) == Counter((request_id, path, "OK") for request_id, path in calls.items())


@pytest.mark.timeout(3600)
async def test_calls_over_a_network_that_loses_answers_happen_once(server: Served, api: Api, figure: Figure) -> None:
    """They leave behind what the same calls leave that are made once, and each is answered once and for all."""
    before = await rows(server)
    quiet, hasty = Quiet(api, seed=1), Hasty(api, seed=2)
    await live(quiet, "quiet")
    await closed(api, "quiet")
    once = await rows(server) - before
    assert set(quiet.request_ids.values()) == {method.path for method in CHANGES.values()}, "a method is never called"

    await live(hasty, "hasty")
    await check(server, api, before, once, quiet, hasty)

    async with dropping(server.address, seed=3) as (address, proxy), connected(address, server.admin_key) as lossy:
        stubborn = Stubborn(lossy, 4, proxy)
        await in_flight(stubborn, [f"life-{number}" for number in range(LIVES)])
    await check(server, api, before, once, quiet, hasty, stubborn)
    report(stubborn, proxy, figure)


async def in_flight(call: Caller, names: list[str]) -> None:
    """Live so many lives, some at a time."""
    waiting = iter(names)

    async def one_after_the_other() -> None:
        for name in waiting:
            await live(call, name)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.create_task(one_after_the_other())


def report(call: Stubborn, proxy: Dropping, figure: Figure) -> None:
    """Say how much was tried; and that it was enough."""
    calls, fates = len(call.request_ids), ", ".join(f"{n} {fate.value}" for fate, n in proxy.fates.items())
    assert calls >= 50 * LIVES
    assert min(proxy.fates[fate] for fate in Fate) > scaled(100, least=10)
    figure(f"{calls} calls of {len(CHANGES)} methods, sent {call.sent} times: {fates}")


async def test_a_stream_is_taken_up_again_by_those_alone_who_still_may(server: Served, api: Api) -> None:
    """What RunExecution goes on with is not what was answered before; and an answer can be read by who may read there."""
    session_id = await api.session(flows.steps())
    await ask(api, "CreateUser", name="runner")
    await ask(api, "CreateMember", parent="acme", user="@runner", role="ROLE_WRITE")
    key = (await ask(api, "CreateApiKey", parent="@runner", role="ROLE_WRITE")).key
    run = {"session": session_id, "spec": {"definition": "workflow"}, "request_id": str(uuid.UUID(int=5, version=4))}
    async with connected(server.address, key) as theirs:
        first = await ask(theirs, "RunExecution", **run)
        assert (await ask(theirs, "RunExecution", **run)).execution == first.execution
        note = {"parent": "acme/pipeline", "key": "note", "value": {"string_value": "ours"}}
        note["request_id"] = str(uuid.UUID(int=6, version=4))
        kept = await ask(theirs, "CreateMetadata", **note)
        assert await ask(theirs, "CreateMetadata", **note) == kept
        await ask(api, "DeleteMember", parent="acme", user="@runner")
        await expect_refusal(ask(theirs, "CreateMetadata", **note), grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        await expect_refusal(ask(theirs, "RunExecution", **run), grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_a_request_id_is_the_same_in_capitals(api: Api) -> None:
    """As every id is: what was asked for under it happens once, also when both come at the same time."""
    session_id = await api.session(flows.steps())
    ids = ["ABCDEFAB-CDEF-4ABC-8DEF-ABCDEFABCDEF", "abcdefab-cdef-4abc-8def-abcdefabcdef"]
    made = [await ask(api, "CreateOrganization", alias="twice", request_id=id_) for id_ in ids]
    assert made[0] == made[1]
    start = {"session": session_id, "spec": {"definition": "workflow"}}
    started = await asyncio.gather(*(ask(api, "StartExecution", **start, request_id=id_) for id_ in ids))
    run = await ask(api, "RunExecution", **start, request_id=ids[1])
    assert started[0].execution.id == started[1].execution.id
    assert run.execution.id == (await ask(api, "RunExecution", **start, request_id=ids[0])).execution.id
    entries = [entry for entry in await audited(api) if entry.request_id]
    methods = ["CreateOrganization", "StartExecution", "RunExecution"]
    assert [entry.method.rpartition("/")[2] for entry in entries] == methods
    assert {entry.request_id.lower() for entry in entries} == {ids[1]}
