"""Updates with etags: of many who read, change and write back at the same time, none undoes what another has written."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import acme
import flows
import grpc
import schedules
from acme import DRAFT
from blobhub.v1 import access_pb2, audit_pb2, schedule_pb2
from blobhub_client import page
from blobhub_server.blobtypes.conformance import expect_refusal, reason_of
from calling import METHODS, ask
from figures import Figure
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value
from scale import scaled
from served import Api

MANY, SOME = scaled(200, least=20), scaled(30, least=8)
"""Writers of metadata, and of each other kind of record: there are texts that hold no more."""


@dataclass(frozen=True)
class Record:
    """A record that has an etag: `read` answers the words in it and the etag, `write` puts others there by `method`."""

    method: str
    read: Callable[[], Awaitable[tuple[list[str], str]]]
    write: Callable[..., Awaitable[Any]]
    writers: int = SOME


def words_in(value: Any) -> list[str]:
    """The words in a text, or in a list."""
    return value.split() if isinstance(value, str) else json_format.MessageToDict(value)


def record(
    api: Api, get: str, put: str, resource: str, field: str, at: dict[str, str], *, text: bool = True, **how: Any
) -> Record:
    """A record with words in a field: what reads and what writes it, and what both are told it by."""

    async def read() -> tuple[list[str], str]:
        found = getattr(await ask(api, get, **at), resource)
        return words_in(getattr(found, field)), found.etag

    def write(words: list[str], **more: str) -> Awaitable[Any]:
        value = " ".join(words) if text else json_format.ParseDict(words, Value())
        return ask(api, put, **at, **{field: value}, **how, **more)

    return Record(method=put, read=read, write=write, writers=MANY if put == "UpdateMetadata" else SOME)


def definition(api: Api) -> Record:
    """The etag is the draft's; it is read first, so that the document is not older."""
    document = json.loads(flows.steps())

    async def read() -> tuple[list[str], str]:
        etag = (await ask(api, "GetRevision", revision=DRAFT)).revision.etag
        found = await ask(api, "GetDefinition", definition=f"{DRAFT}/workflow")
        return json.loads(found.document).get("words", []), etag

    def write(words: list[str], **more: str) -> Awaitable[Any]:
        text = json.dumps(document | {"words": words})
        return ask(api, "PutDefinition", revision=DRAFT, alias="workflow", document=text, **more)

    return Record(method="PutDefinition", read=read, write=write)


def schedule(api: Api, alias: str, find: Callable[[Api, str], Awaitable[schedule_pb2.Schedule]]) -> Record:
    """What is merged with the rest of a spec, so that two updates meet in one document; `find` is a way to read it."""

    async def read() -> tuple[list[str], str]:
        found = await find(api, f"{schedules.DRAFT}/{alias}")
        return [word for item in found.spec.input_data for word in json.loads(item.value_json)], found.etag

    def write(words: list[str], **more: str) -> Awaitable[Any]:
        spec = {"input_data": [{"alias": "words", "value_json": json.dumps(words)}]}
        return ask(api, "UpdateSchedule", schedule=f"{schedules.DRAFT}/{alias}", spec=spec, **more)

    return Record(method="UpdateSchedule", read=read, write=write)


async def listed(api: Api, reference: str) -> schedule_pb2.Schedule:
    """A schedule as the list of its revision has it, in which another one is before it."""
    found = (await ask(api, "ListSchedules", revision=schedules.DRAFT)).schedules
    return next(each for each in found if reference.endswith(f"/{each.alias}"))


async def enabled(api: Api, reference: str) -> schedule_pb2.Schedule:
    """A schedule as it is answered by a change of what is not content."""
    return await schedules.enable(api, reference)


async def records(api: Api) -> list[Record]:
    """One of every kind, with no words yet."""
    session_id = await api.session(flows.steps())
    key = await ask(api, "CreateApiKey", parent="acme", role="ROLE_READ")
    credential = await ask(api, "CreateCredential", parent="acme", alias="words", type="test", body={"user": "nobody"})
    await ask(api, "CreateUser", name="writer")
    none = json_format.ParseDict([], Value())
    of_blob = {"parent": "acme/pipeline", "key": "words"}
    await ask(api, "CreateMetadata", **of_blob, value=none)
    of_session = {"session": session_id, "alias": "words"}
    await ask(api, "PutSessionObject", **of_session, value=none)
    of_key, of_credential = {"api_key": key.api_key.id}, {"credential": credential.credential.id}
    await acme.blob(api, schedules.NIGHTLY, schedules.SCHEDULER)
    ways = {"got": schedules.get, "listed": listed, "enabled": enabled}
    for alias in ways:
        await schedules.create(api, alias)
    name = {"update_mask": {"paths": ["display_name"]}}
    return [
        record(api, "GetOrganization", "UpdateOrganization", "organization", "description", {"organization": "acme"}),
        record(api, "GetBlob", "UpdateBlob", "blob", "description", {"blob": "acme/pipeline"}),
        record(api, "GetRevision", "UpdateRevision", "revision", "comment", {"revision": DRAFT}),
        record(api, "GetApiKey", "UpdateApiKey", "api_key", "description", of_key),
        record(api, "GetCredential", "UpdateCredential", "credential", "description", of_credential),
        record(api, "GetUser", "UpdateUser", "user", "display_name", {"user": "@writer"}, **name),
        record(api, "GetSessionObject", "PutSessionObject", "session_object", "value", of_session, text=False),
        record(api, "GetMetadata", "UpdateMetadata", "record", "value", of_blob, text=False),
        definition(api),
        *(schedule(api, alias, find) for alias, find in ways.items()),
    ]


async def persist(attempt: Callable[[], Awaitable[Any]], crowd: int, rng: random.Random) -> int:
    """Try until the etag is not stale; how often it was. Who comes too late waits, up to the longer the more there are."""
    stale = 0
    while True:
        try:
            await attempt()
        except grpc.aio.AioRpcError as error:
            if reason_of(error) != "STALE_ETAG":
                raise
            stale += 1
            await asyncio.sleep(rng.uniform(0, 0.02 * crowd))
        else:
            return stale


async def entries(api: Api, method: str) -> list[audit_pb2.AuditEntry]:
    """The audit log's entries of a method, those that came to nothing left out."""
    path = METHODS[method].path.removeprefix("/")
    request = audit_pb2.ListAuditEntriesRequest(parent="-", method=path, page_size=1000)
    return [entry async for entry in page(api.audit.ListAuditEntries, request) if entry.code == "OK"]


async def test_writers_with_etags_lose_nothing(api: Api, figure: Figure) -> None:
    """Each leaves its word exactly once."""
    rng = random.Random(4)
    for kept in await records(api):

        async def write(word: str, kept: Record = kept) -> None:
            there, etag = await kept.read()
            await kept.write([*there, word], etag=etag)

        words = [f"{number:02x}" for number in range(kept.writers)]
        stale = await asyncio.gather(*(persist(lambda word=word: write(word), len(words), rng) for word in words))
        written, _ = await kept.read()
        assert sorted(written) == words, f"{kept.method} lost some"
        assert sum(stale), "no two ever met; the test does not test what it says"
        figure(f"{kept.method}: {kept.writers} writers, {sum(stale)} times too late")


async def test_of_writers_without_etags_the_last_wins_and_none_fails(api: Api) -> None:
    """The audit log says who that was."""
    rng = random.Random(5)
    for kept in await records(api):
        words = {str(uuid.UUID(int=rng.getrandbits(128), version=4)): f"{number:02x}" for number in range(SOME)}
        await asyncio.gather(*(kept.write([word], request_id=request_id) for request_id, word in words.items()))
        written, _ = await kept.read()
        last = (await entries(api, kept.method))[-1]
        assert written == [words[last.request_id]], kept.method


async def test_a_role_that_many_turn_round_is_turned_as_often(api: Api) -> None:
    """Every writer reads the role and writes the other one; an odd number of them leaves the other one there."""
    await api.session(flows.steps())
    await ask(api, "CreateUser", name="writer")
    at, rng = {"parent": "acme/pipeline", "user": "@writer"}, random.Random(6)
    await ask(api, "CreateMember", **at, role="ROLE_READ")
    other = {access_pb2.ROLE_READ: "ROLE_WRITE", access_pb2.ROLE_WRITE: "ROLE_READ"}

    async def turn() -> None:
        found = (await ask(api, "GetMember", **at)).member
        await ask(api, "UpdateMember", **at, role=other[found.role], etag=found.etag)

    times = SOME // 2 * 2 + 1
    await asyncio.gather(*(persist(turn, SOME, rng) for _ in range(times)))
    assert (await ask(api, "GetMember", **at)).member.role == access_pb2.ROLE_WRITE
    assert len(await entries(api, "UpdateMember")) == times


async def test_the_etag_that_every_record_has_writes_over_whatever_is_there(api: Api) -> None:
    for kept in await records(api):
        await kept.write(["first"], etag="*")
        _, etag = await kept.read()
        await kept.write(["second"], etag="*")
        await expect_refusal(kept.write(["third"], etag=etag), grpc.StatusCode.ABORTED, "STALE_ETAG")
        written, _ = await kept.read()
        assert written == ["second"], kept.method
