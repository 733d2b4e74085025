"""Taking access away, on two servers over one PostgreSQL: new calls are refused within a second, streams end within five.

The bounds are promises of the contract. How long it takes is printed and not judged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import flows
import grpc
import pytest
from blobhub.v1 import (
    api_key_pb2,
    audit_pb2,
    blob_pb2,
    execution_pb2,
    member_pb2,
    session_pb2,
    user_pb2,
)
from figures import Figure
from google.protobuf.timestamp_pb2 import Timestamp
from scale import scaled
from served import Api, Served, ServerProcess, connected
from stranger.notes.v1 import notes_pb2, notes_pb2_grpc
from waiting import until, within_deadline

ROUNDS = scaled(100, least=10)
"""At least ten: each of five ways of taking access away, on each of two servers."""
AT_ONCE = 10
LIFETIME_SECONDS = 20.0
"""Of a key that is to expire: time enough to open its streams."""

REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


@dataclass
class Took:
    """How long things took, in seconds."""

    calls: list[float] = field(default_factory=list)
    streams: list[float] = field(default_factory=list)


class Round:
    """One caller with open streams on both servers, and one way of taking their access away."""

    def __init__(self, admins: list[Api], servers: list[ServerProcess], number: int, session_id: str) -> None:
        self.admins = admins
        self.servers = servers
        self.number = number
        self.session_id = session_id
        self.name = f"user-{number}"
        self.key_id = ""
        self.ends = 0.0

    @property
    def admin(self) -> Api:
        """The administrator, on each server in turn."""
        return self.admins[self.number % 2]

    async def caller(self, seconds: float | None = None) -> str:
        """A user who is an admin of the organization, and a key of theirs."""
        await self.admin.users.CreateUser(user_pb2.CreateUserRequest(name=self.name))
        member = member_pb2.CreateMemberRequest(parent="acme", user=f"@{self.name}", role="ROLE_ADMIN")
        await self.admin.members.CreateMember(member)
        request = api_key_pb2.CreateApiKeyRequest(parent=f"@{self.name}", role="ROLE_ADMIN")
        if seconds is not None:
            expire_time = datetime.now(UTC) + timedelta(seconds=seconds)
            self.ends = time.time() + seconds
            request.expire_time.CopyFrom(Timestamp())
            request.expire_time.FromDatetime(expire_time)
        made = await self.admin.api_keys.CreateApiKey(request)
        self.key_id = made.api_key.id
        return made.key

    async def revoke(self) -> None:
        await self.admin.api_keys.RevokeApiKey(api_key_pb2.RevokeApiKeyRequest(api_key=self.key_id))

    async def expire(self) -> None:
        await asyncio.sleep(max(0.0, self.ends - time.time()))

    async def disable(self) -> None:
        mask = {"paths": ["disabled"]}
        await self.admin.users.UpdateUser(user_pb2.UpdateUserRequest(user=f"@{self.name}", update_mask=mask, disabled=True))

    async def remove(self) -> None:
        await self.admin.members.DeleteMember(member_pb2.DeleteMemberRequest(parent="acme", user=f"@{self.name}"))

    async def demote(self) -> None:
        await self.admin.members.UpdateMember(
            member_pb2.UpdateMemberRequest(parent="acme", user=f"@{self.name}", role="ROLE_READ")
        )

    async def run(self, way: str, took: Took) -> None:
        """Open streams and an upload, take the access away, and see new calls refused and all of it ended."""
        key = await self.caller(LIFETIME_SECONDS if way == "expire" else None)
        async with AsyncExitStack() as stack:
            apis = [await stack.enter_async_context(connected(server.address, key)) for server in self.servers]
            reading = [await Open.stream(call) for api in apis for call in self.reads(api)]
            writing = [await Open.stream(self.audit(api)) for api in apis]
            writing += [await Open.upload(self.upload(api), f"note-{self.number}") for api in apis]
            ends = [asyncio.create_task(one.end()) for one in (*reading, *writing)]
            await getattr(self, way)()
            start = time.perf_counter()
            await asyncio.gather(*(self.until_refused(api, way, took, start) for api in apis))
            kept = len(reading) if way == "demote" else 0
            codes = await within_deadline(asyncio.gather(*ends[kept:]))
            took.streams.append(time.perf_counter() - start)
            still_known = way in ("remove", "demote")
            code = grpc.StatusCode.PERMISSION_DENIED if still_known else grpc.StatusCode.UNAUTHENTICATED
            assert set(codes) == {code}, (way, codes)
            assert not any(end.done() for end in ends[:kept]), "readers may go on reading"
            for one in reading:
                one.call.cancel()

    def reads(self, api: Api) -> list[grpc.aio.UnaryStreamCall]:
        """Streams that need `read`."""
        return [
            api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=self.session_id)),
            api.blobs.WatchBlob(blob_pb2.WatchBlobRequest(blob="acme/pipeline")),
        ]

    def audit(self, api: Api) -> grpc.aio.UnaryStreamCall:
        """A stream that needs `admin`."""
        return api.audit.WatchAuditEntries(audit_pb2.WatchAuditEntriesRequest(parent="acme"))

    def upload(self, api: Api) -> grpc.aio.StreamUnaryCall:
        """An upload, which needs `write`."""
        return notes_pb2_grpc.NotesServiceStub(api.channel).UploadNote()

    async def until_refused(self, api: Api, way: str, took: Took, start: float) -> None:
        """Call until it is refused; a demoted caller may go on reading, and is refused to write."""
        await until(partial(self.refused, api, way))
        took.calls.append(time.perf_counter() - start)

    async def refused(self, api: Api, way: str) -> bool:
        call: Awaitable[object] = api.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/pipeline"))
        if way == "demote":
            call = api.blobs.UpdateBlob(blob_pb2.UpdateBlobRequest(blob="acme/pipeline", description=self.name))
        try:
            await call
        except grpc.aio.AioRpcError as error:
            if error.code() not in REFUSED:
                raise
            return True
        return False


@dataclass
class Open:
    """A call that the server has taken in, and that goes on."""

    call: grpc.aio.Call
    answers: AsyncIterator[object] | None = None

    @classmethod
    async def stream(cls, call: grpc.aio.UnaryStreamCall) -> Open:
        """A stream of answers, the first of which has come."""
        answers = aiter(call)
        await anext(answers)
        return cls(call, answers)

    @classmethod
    async def upload(cls, call: grpc.aio.StreamUnaryCall, note: str) -> Open:
        """An upload whose first piece is sent, and whose last one never will be."""
        await call.write(notes_pb2.UploadNoteRequest(revision="acme/notes@draft", name=note, text="a beginning"))
        return cls(call)

    async def end(self) -> grpc.StatusCode:
        """The code that it ends with."""
        try:
            if self.answers is None:
                await self.call
            else:
                async for _ in self.answers:
                    pass
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@pytest.fixture
async def two_servers(tmp_path, fresh_postgres: Callable[[], Awaitable[str]]) -> AsyncIterator[list[ServerProcess]]:
    """Two servers on one PostgreSQL."""
    url = await fresh_postgres()
    keys = tmp_path / "master-key"
    servers = [ServerProcess(tmp_path / name, url, master_key_file=keys, log_level="error") for name in ("one", "two")]
    for server in servers:
        await server.start()
    servers[1].admin_key = servers[0].admin_key
    yield servers
    for server in servers:
        server.stop()


@pytest.mark.timeout(3600)
async def test_who_loses_access_is_refused_on_two_servers_and_their_streams_end(
    two_servers: list[ServerProcess], figure: Figure
) -> None:
    took = Took()
    async with AsyncExitStack() as stack:
        admins = [await stack.enter_async_context(connected(server.address, server.admin_key)) for server in two_servers]
        session_id = await admins[0].session(flows.delay(0.01))
        notes = blob_pb2.CreateBlobRequest(organization="acme", alias="notes", type="stranger.notes")
        await admins[0].blobs.CreateBlob(notes)
        start = execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"})
        await admins[0].executions.StartExecution(start)
        ways = ("revoke", "expire", "disable", "remove", "demote")
        rounds = [Round(admins, two_servers, number, session_id) for number in range(ROUNDS)]
        for first in range(0, ROUNDS, AT_ONCE):
            batch = rounds[first : first + AT_ONCE]
            await asyncio.gather(*(one.run(ways[one.number % len(ways)], took) for one in batch))
    figure(
        f"{ROUNDS} rounds: new calls refused after at most {max(took.calls):.2f} s, "
        f"streams ended after at most {max(took.streams):.2f} s"
    )


async def test_what_is_no_longer_public_is_no_longer_watched(server: Served, api: Api, anonymous: Api) -> None:
    await api.session(flows.steps(1))
    public = blob_pb2.UpdateBlobRequest(blob="acme/pipeline", visibility="VISIBILITY_PUBLIC")
    await api.blobs.UpdateBlob(public)
    watched = await Open.stream(anonymous.blobs.WatchBlob(blob_pb2.WatchBlobRequest(blob="acme/pipeline")))
    private = blob_pb2.UpdateBlobRequest(blob="acme/pipeline", visibility="VISIBILITY_PRIVATE")
    await api.blobs.UpdateBlob(private)
    assert await within_deadline(watched.end()) is grpc.StatusCode.UNAUTHENTICATED


async def key_and_watch(server: Served, api: Api) -> tuple[str, AsyncExitStack, Api]:
    """A key of an organization that the server believes, and a client with it."""
    await api.session(flows.steps(1))
    made = await api.api_keys.CreateApiKey(api_key_pb2.CreateApiKeyRequest(parent="acme", role="ROLE_READ"))
    stack = AsyncExitStack()
    client = await stack.enter_async_context(connected(server.address, made.key))
    await client.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/pipeline"))
    return made.api_key.id, stack, client


async def test_a_stream_opened_while_a_revoked_key_is_still_believed_is_ended_too(server: Served, api: Api) -> None:
    """The bell has rung before the stream was there to hear it."""
    key_id, stack, client = await key_and_watch(server, api)
    async with stack:
        await api.api_keys.RevokeApiKey(api_key_pb2.RevokeApiKeyRequest(api_key=key_id))
        watched = await Open.stream(client.blobs.WatchBlob(blob_pb2.WatchBlobRequest(blob="acme/pipeline")))
        assert await within_deadline(watched.end()) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_stream_ends_with_the_grace_of_its_rotated_key(server: Served, api: Api) -> None:
    """The key ends later than when it is rotated, and at another time than the stream was admitted with."""
    key_id, stack, client = await key_and_watch(server, api)
    async with stack:
        watched = await Open.stream(client.blobs.WatchBlob(blob_pb2.WatchBlobRequest(blob="acme/pipeline")))
        rotate = api_key_pb2.RotateApiKeyRequest(api_key=key_id, grace=timedelta(seconds=1.5))
        await api.api_keys.RotateApiKey(rotate)
        assert await within_deadline(watched.end()) is grpc.StatusCode.UNAUTHENTICATED
