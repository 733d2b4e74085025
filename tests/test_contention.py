"""Two servers on one PostgreSQL, and calls that change the same things at the same time, in every order: none breaks."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import flows
import grpc
import pytest
from blobhub.v1 import audit_pb2, blob_pb2, revision_pb2, session_pb2
from blobhub_client import page
from blobhub_server.clock import utc_now
from blobhub_server.db.engine import Database
from blobhub_server.db.opening import open_database
from blobhub_server.errors import AlreadyExists
from blobhub_server.platform.blobs.aliases import claim_alias
from blobhub_server.platform.store import api_key as api_key_store
from blobhub_server.platform.store import blob as blob_store
from calling import ask
from databases import select
from figures import Figure
from scale import scaled
from served import WORKFLOW, Api, connected, served
from waiting import until

ROUNDS = scaled(10, least=2)
BLOB, OTHER = "acme/pipeline", "acme/other"
VALUE = {"string_value": "a value"}
TURNED_AWAY = frozenset(
    {"ABORTED", "ALREADY_EXISTS", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED"}
)
"""How a call may be refused for what another one has done meanwhile. INTERNAL is not how."""


WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class Crowd:
    """Makes calls, now on one server and now on the other; counts how they were answered."""

    def __init__(self, apis: list[Api], seed: int) -> None:
        self._apis = apis
        self.random = random.Random(seed)
        self.codes: Counter[str] = Counter()

    async def __call__(self, name: str, /, **fields: Any) -> Any:
        """The answer; None where the call is turned away."""
        try:
            answer = await ask(self.random.choice(self._apis), name, **fields)
        except grpc.aio.AioRpcError as error:
            self.codes[error.code().name] += 1
            if error.code().name not in TURNED_AWAY:
                raise AssertionError(f"{name}: {error.code().name}: {error.details()}") from error
            return None
        self.codes["OK"] += 1
        return answer

    def scope(self) -> str:
        """The organization, a blob of it, or one that comes and goes."""
        return self.random.choice(["acme", BLOB, OTHER])


async def metadata(call: Crowd) -> None:
    at = {"parent": BLOB, "key": f"key-{call.random.randrange(3)}"}
    await call("CreateMetadata", **at, value=VALUE)
    await call("UpdateMetadata", **at, value=VALUE)
    await call("DeleteMetadata", **at)


async def revisions(call: Crowd) -> None:
    made = await call("CreateRevision", blob=BLOB)
    at = {"revision": made.revision.id}
    await call("UpdateRevision", **at, comment="a comment")
    await call("PutDefinition", **at, alias="workflow", document=flows.steps(call.random.randrange(1, 5)))
    if call.random.random() < 0.5:
        await call("DiscardRevision", **at)
        return
    await call("CommitRevision", **at)
    await call("UpdateBlob", blob=BLOB, default_revision=made.revision.id)
    await call("PublishRevision", **at, keep_default=call.random.random() < 0.5)


async def blob(call: Crowd) -> None:
    await call("UpdateBlob", blob=BLOB, description="a description")
    for old, new in (("twin", "pair"), ("pair", "twin")):
        await call("UpdateBlob", blob=f"acme/{old}", alias=new)


async def swap(call: Crowd) -> None:
    """Each wants the other's alias."""
    here, there = {"blob": BLOB, "alias": "third"}, {"blob": "acme/third", "alias": "pipeline"}
    await asyncio.gather(call("UpdateBlob", **here), call("UpdateBlob", **there))
    here, there = {"organization": "acme", "alias": "other"}, {"organization": "other", "alias": "acme"}
    await asyncio.gather(call("UpdateOrganization", **here), call("UpdateOrganization", **there))


async def organization(call: Crowd) -> None:
    await call("UpdateOrganization", organization="acme", description="a description")
    await call("UpdateLimit", parent=call.scope(), name="blob.revisions", value=call.random.randrange(5000, 9000))


async def members(call: Crowd) -> None:
    at = {"parent": call.scope(), "user": f"@user-{call.random.randrange(3)}"}
    await call("CreateMember", **at, role="ROLE_ADMIN")
    await call("UpdateMember", **at, role="ROLE_READ")
    await call("DeleteMember", **at)


async def users(call: Crowd) -> None:
    user, mask = f"@user-{call.random.randrange(3)}", {"paths": ["administrator"]}
    await call("UpdateUser", user=user, update_mask=mask, administrator=call.random.random() < 0.5)


async def keys(call: Crowd) -> None:
    scope = call.random.choice([call.scope(), f"@user-{call.random.randrange(3)}"])
    made = await call("CreateApiKey", parent=scope, role="ROLE_READ")
    if made is None:
        return
    at = {"api_key": made.api_key.id}
    await asyncio.gather(call("RotateApiKey", **at), call("UpdateApiKey", **at, description="a description"))
    await call("RevokeApiKey", **at)


async def credentials(call: Crowd) -> None:
    made = await call(
        "CreateCredential", parent=call.scope(), alias=f"c-{call.random.random()}", type="test", body={"a": "b"}
    )
    if made is not None:
        at = {"credential": made.credential.id}
        await call("UpdateCredential", **at, body={"a": "c"})
        await call("DeleteCredential", **at)


async def sessions(call: Crowd) -> None:
    made = await call("CreateSession", revision=f"{call.random.choice([BLOB, OTHER])}@default")
    if made is None:
        return
    at = {"session": made.session.id}
    puts = [call("PutSessionObject", **at, alias="shared", value=VALUE) for _ in range(3)]
    await asyncio.gather(*puts, *(call("StartExecution", **at, spec={"definition": "workflow"}) for _ in range(3)))
    await asyncio.gather(*(call("CloseSession", **at) for _ in range(2)))


async def comes_and_goes(call: Crowd) -> None:
    """A blob that is deleted with all that is at work in it."""
    await call("CreateBlob", organization="acme", alias="other", type=WORKFLOW)
    await call("PutDefinition", revision=f"{OTHER}@draft", alias="workflow", document=keeping())
    await asyncio.sleep(call.random.uniform(0, 0.2))
    await call("DeleteBlob", blob=OTHER, cascade=True)


def keeping() -> str:
    """A workflow that writes a session object between two scripts."""
    return flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("one", "logic.code", code="set_data_output('result', 1)\nset_result('success')"),
            flows.value("shared", "shared", persistence="session"),
            flows.component("two", "logic.code", code="set_result('success')"),
            flows.component("end", "flow.end"),
        ],
        [
            flows.control("start", "one"),
            flows.data("one", "result", "shared", "value"),
            flows.control("one", "two", "success"),
            flows.control("two", "end", "success"),
        ],
    )


KINDS = (metadata, revisions, blob, swap, organization, members, users, keys, credentials, sessions, comes_and_goes)


async def world(api: Api) -> None:
    """An organization with blobs that stay, another one, and some people."""
    await api.session(keeping())
    await ask(api, "CommitRevision", revision=f"{BLOB}@draft")
    await ask(api, "CreateOrganization", alias="other")
    for alias in ("twin", "third"):
        await ask(api, "CreateBlob", organization="acme", alias=alias, type=WORKFLOW)
    for number in range(3):
        await ask(api, "CreateUser", name=f"user-{number}")


async def rounds(kind: Callable[[Crowd], Awaitable[None]], call: Crowd) -> None:
    """One caller, at work for a while."""
    for _ in range(ROUNDS):
        await kind(call)


@pytest.fixture
async def url(fresh_postgres: Callable[[], Awaitable[str]]) -> str:
    """A PostgreSQL database of this test's own."""
    return await fresh_postgres()


@pytest.fixture
async def hub(tmp_path: Path, url: str) -> AsyncIterator[tuple[Api, Database]]:
    """A server, and its database beside it."""
    db = await open_database(url)
    async with served(tmp_path / "data", url) as server, connected(server.address, server.admin_key) as api:
        yield api, db
    await db.close()


async def test_whatever_meets_nothing_breaks(tmp_path: Path, url: str, figure: Figure) -> None:
    """No call fails for want of an order of locks, and every log is whole."""
    async with (
        served(tmp_path / "data", url, lease_seconds=2) as one,
        served(tmp_path / "data", url, lease_seconds=2) as two,
        connected(one.address, one.admin_key) as here,
        connected(two.address, one.admin_key) as there,
    ):
        await world(here)
        crowd = Crowd([here, there], seed=7)
        async with asyncio.TaskGroup() as tasks:
            for kind in KINDS * 2:
                tasks.create_task(rounds(kind, crowd))
        await require_whole_sessions(here)
        await require_whole_blob(here)
        await require_whole_audit_log(here)
    deadlocks = await select(url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert deadlocks == [(0,)]
    assert crowd.codes["OK"] > crowd.codes.total() / 2, "there was too little to meet"
    figure(f"{crowd.codes.total()} calls: {dict(crowd.codes)}")


async def require_whole_sessions(api: Api) -> None:
    """Every session's log is numbered without gaps, and one that is closed ends with that, once. No execution failed."""
    sessions = page(api.sessions.ListSessions, session_pb2.ListSessionsRequest(blob=BLOB, page_size=1000))
    for item in [item async for item in sessions]:
        closes = item.state != session_pb2.SESSION_STATE_OPEN
        watch = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=item.id, replay_only=not closes))
        events = [event async for batch in watch for event in batch.events]
        assert [event.session_sequence for event in events] == list(range(1, len(events) + 1))
        types = [event.type for event in events]
        assert types.count("session_closed") == closes
        assert types.count("flow.entered") == types.count("flow.exited") + types.count("flow.stopped")


async def require_whole_blob(api: Api) -> None:
    """The blob's events are numbered without gaps, and so are its snapshots."""
    watch = api.blobs.WatchBlob(blob_pb2.WatchBlobRequest(blob=BLOB, replay_only=True))
    numbers = [event.sequence async for batch in watch for event in batch.events]
    last = (await ask(api, "GetBlob", blob=BLOB)).blob.last_sequence
    assert numbers == list(range(1, last + 1))
    revisions = page(api.revisions.ListRevisions, revision_pb2.ListRevisionsRequest(blob=BLOB, page_size=1000))
    snapshots = sorted([revision.number async for revision in revisions if revision.number])
    assert snapshots == list(range(1, len(snapshots) + 1))
    assert snapshots


async def require_whole_audit_log(api: Api) -> None:
    """It is numbered without gaps."""
    request = audit_pb2.ListAuditEntriesRequest(parent="-", page_size=1000)
    numbers = [entry.sequence async for entry in page(api.audit.ListAuditEntries, request)]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_an_alias_that_is_anothers_is_refused_before_an_index_is_waited_for(hub: tuple[Api, Database]) -> None:
    api, db = hub
    await ask(api, "CreateOrganization", alias="acme")
    async with db.write() as tx:
        with pytest.raises(AlreadyExists):
            async with claim_alias(tx, "organization", "", "acme", "another"):
                raise AssertionError("the statement was run")


async def test_a_key_is_rotated_after_whoever_holds_its_blob(hub: tuple[Api, Database], url: str) -> None:
    """Else the new key would come into a blob that is being deleted, and the deletion fail for it."""
    api, db = hub
    await ask(api, "CreateOrganization", alias="acme")
    made = await ask(api, "CreateBlob", organization="acme", alias="pipeline", type=WORKFLOW)
    key = await ask(api, "CreateApiKey", parent=BLOB, role="ROLE_READ")
    async with db.write() as tx:
        await blob_store.get(tx, made.blob.id, lock=True)
        rotating = asyncio.create_task(ask(api, "RotateApiKey", api_key=key.api_key.id))
        await until(lambda: rotating.done() or select(url, WAITING))
        assert not rotating.done()
    assert (await rotating).key


async def test_noting_when_keys_were_used_waits_for_nobody(hub: tuple[Api, Database]) -> None:
    """A key that somebody has locked is passed over."""
    api, db = hub
    ids = [(await ask(api, "CreateApiKey", parent="@me", role="ROLE_READ")).api_key.id for _ in range(3)]
    async with db.write() as changing, db.write() as noting:
        await api_key_store.get(changing, ids[1], lock=True)
        await api_key_store.update_last_used(noting, dict.fromkeys(ids, utc_now()))
    async with db.read() as tx:
        keys = [await api_key_store.get(tx, id_) for id_ in ids]
    assert [key.last_used_time is not None for key in keys] == [True, False, True]
