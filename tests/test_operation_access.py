"""Whoever has begun an operation and may not write to its blob any more when it ends has changed nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import acme
import grpc
import pytest
from acme import ADMIN, READ, WRITE
from blobhub.v1 import member_pb2
from operations import FAILED, SUCCEEDED, Gate, begin, blob, ended, gate, reason, text
from served import Api, Served, connected

__all__ = ["gate"]

Change = Callable[[], Awaitable[object]]
Writer = Callable[[Served, Api], AsyncIterator[tuple[Api, Change]]]


async def revoked_key(server: Served, api: Api) -> AsyncIterator[tuple[Api, Change]]:
    made = await acme.key(api, "acme", WRITE)
    async with connected(server.address, made.key) as writer:
        yield writer, lambda: acme.revoke_key(api, made.api_key.id)


async def former_member(server: Served, api: Api) -> AsyncIterator[tuple[Api, Change]]:
    request = member_pb2.DeleteMemberRequest(parent="acme", user="@ada")
    async with acme.person(server, api, "ada", ("acme", WRITE)) as writer:
        yield writer, lambda: api.members.DeleteMember(request)


async def reader(server: Served, api: Api) -> AsyncIterator[tuple[Api, Change]]:
    request = member_pb2.UpdateMemberRequest(parent="acme", user="@ada", role=READ)
    async with acme.person(server, api, "ada", ("acme", WRITE)) as writer:
        yield writer, lambda: api.members.UpdateMember(request)


async def disabled_user(server: Served, api: Api) -> AsyncIterator[tuple[Api, Change]]:
    async with acme.person(server, api, "ada", ("acme", ADMIN)) as writer:
        yield writer, lambda: acme.update_user(api, "@ada", disabled=True)


@pytest.mark.parametrize("someone", [revoked_key, former_member, reader, disabled_user])
async def test_an_operation_fails_when_whoever_began_it_may_not_write_any_more(
    gate: Gate, server: Served, api: Api, someone: Writer
) -> None:
    await blob(api)
    async with asynccontextmanager(someone)(server, api) as (writer, lose_access):
        begun = await begin(writer)
        await gate.next()
        await lose_access()
        gate.is_open.set()
        operation = await ended(api, begun.id)
        assert (operation.state, reason(operation)) == (FAILED, "PERMISSION_DENIED")
        assert operation.error.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
        assert await text(api) == "a\nb\nc"


async def test_an_operation_succeeds_when_whoever_began_it_may_write_by_another_role(
    gate: Gate, server: Served, api: Api
) -> None:
    await blob(api)
    async with acme.person(server, api, "ada", ("acme", WRITE), ("acme/notes", WRITE)) as writer:
        begun = await begin(writer)
        await gate.next()
        await api.members.DeleteMember(member_pb2.DeleteMemberRequest(parent="acme", user="@ada"))
        gate.is_open.set()
        assert (await ended(api, begun.id)).state == SUCCEEDED
        assert await text(api) == "A\nB\nC"
