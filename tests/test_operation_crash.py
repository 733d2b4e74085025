"""Operations and servers that go down: each ends once, and what came of it is written once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from blobhub.v1 import operation_pb2 as pb
from blobhub_client import connect
from blobhub_server.clock import utc_now
from blobhub_server.platform.store.operation import operations
from databases import FreshPostgres
from operations import (
    FAILED,
    PENDING,
    RUNNING,
    SUCCEEDED,
    Gate,
    begin,
    blob,
    capitalized,
    ended,
    gate,
    get,
    put,
    reason,
    text,
)
from served import Api, ServerProcess, connected, served
from several_servers import together
from waiting import until, within_deadline

__all__ = ["gate"]

FOREVER = 3600
LEASE = 2


class Servers:
    """Servers on one database, one after the other or side by side."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        self.key = ""

    @asynccontextmanager
    async def one(self, seconds_per_line: float, **how: Any) -> AsyncIterator[tuple[ServerProcess, Api]]:
        """A server whose lines take so long; leave to kill it."""
        settings = {"notes_seconds_per_line": seconds_per_line, "operation_lease_seconds": LEASE}
        server = ServerProcess(self._folder / "data", self._url, **settings, **how)
        async with server.running():
            self.key = self.key or server.admin_key
            async with connected(server.address, self.key) as api:
                yield server, api


async def runs(api: Api, operation_id: str, after: int = 0) -> int:
    """Wait until an operation runs that has changed since; the number of that change."""

    async def running() -> int:
        operation = await get(api, operation_id)
        return operation.sequence if operation.state == RUNNING and operation.sequence > after else 0

    return await until(running)


async def test_a_client_watches_an_operation_over_the_end_of_its_server(
    gate: Gate, tmp_path: Path, database_url: str
) -> None:
    async with AsyncExitStack() as clients:
        async with served(tmp_path / "data", database_url) as server:
            async with connected(server.address, server.admin_key) as api:
                await blob(api)
                begun = await begin(api)
                await gate.next()
            hub = await clients.enter_async_context(connect(server.address, server.admin_key))
            watching = asyncio.create_task(collected(hub.watch_operation(begun.id)))
        gate.is_open.set()
        async with served(tmp_path / "data", database_url, listen=server.address):
            shown = await within_deadline(watching)
    sequences = [operation.sequence for operation in shown]
    assert (shown[-1].state, sequences) == (SUCCEEDED, sorted(set(sequences)))


async def collected(watch: AsyncIterator[pb.Operation]) -> list[pb.Operation]:
    return [operation async for operation in watch]


async def test_an_operation_whose_server_is_killed_is_run_again_and_ends_once(tmp_path: Path, database_url: str) -> None:
    servers = Servers(tmp_path, database_url)
    async with servers.one(FOREVER) as (_, api):
        await blob(api)
        begun = await begin(api)
        await runs(api, begun.id)
    async with servers.one(0) as (_, api):
        operation = await ended(api, begun.id)
        assert (operation.state, capitalized(operation).lines, await text(api)) == (SUCCEEDED, 3, "A\nB\nC")
        await put(api, text="d")
        assert (await ended(api, (await begin(api)).id)).state == SUCCEEDED
        assert await get(api, begun.id) == operation


async def test_an_operation_under_which_three_servers_went_down_fails(tmp_path: Path, database_url: str) -> None:
    servers, sequence, operation_id = Servers(tmp_path, database_url), 0, ""
    for _ in range(3):
        async with servers.one(FOREVER) as (_, api):
            if not operation_id:
                await blob(api)
                operation_id = (await begin(api)).id
            sequence = await runs(api, operation_id, sequence)
            # What it reports is a change as well; wait for that, or it would be taken for the next run.
            await reported(api, operation_id)
            sequence = (await get(api, operation_id)).sequence
    async with servers.one(0) as (_, api):
        operation = await ended(api, operation_id)
        assert (operation.state, reason(operation)) == (FAILED, "OPERATION_POISONED")
        assert await text(api) == "a\nb\nc"
        assert (await ended(api, (await begin(api)).id)).state == SUCCEEDED


async def reported(api: Api, operation_id: str) -> None:
    """Wait until an operation has told how far it has come."""

    async def has_told() -> bool:
        return (await get(api, operation_id)).progress.stage == "capitalizing"

    await until(has_told)


async def test_what_a_server_gives_back_at_its_shutdown_counts_for_nothing(
    gate: Gate, tmp_path: Path, database_url: str
) -> None:
    key, operation_id = "", ""
    for _ in range(5):
        async with served(tmp_path / "data", database_url) as server:
            key = key or server.admin_key
            async with connected(server.address, key) as api:
                if not operation_id:
                    await blob(api)
                    operation_id = (await begin(api)).id
                assert await gate.next() == operation_id
    assert gate.cancelled == [operation_id] * 5
    gate.is_open.set()
    async with served(tmp_path / "data", database_url) as server, connected(server.address, key) as api:
        assert (await ended(api, operation_id)).state == SUCCEEDED
    assert gate.left == [operation_id]


async def test_an_operation_that_is_given_back_is_pending_until_the_next_server_takes_it(
    gate: Gate, tmp_path: Path, fresh_postgres: FreshPostgres
) -> None:
    """Another server, which runs beside, takes it at once, and not when a lease has run out."""
    url = await fresh_postgres()
    async with served(tmp_path / "data", url, operation_lease_seconds=FOREVER) as first:
        async with connected(first.address, first.admin_key) as api:
            await blob(api)
            begun = await begin(api)
        assert begun.state == PENDING
        assert await gate.next() == begun.id
        async with served(tmp_path / "data", url, operation_lease_seconds=FOREVER) as other:
            pass
        gate.is_open.set()
        async with connected(first.address, first.admin_key) as api:
            assert (await ended(api, begun.id)).state == SUCCEEDED
        assert other.admin_key == ""


async def test_a_server_that_is_frozen_past_its_lease_stops_what_another_has_taken_over(
    tmp_path: Path, fresh_postgres: FreshPostgres
) -> None:
    log = tmp_path / "frozen.log"
    servers = Servers(tmp_path, await fresh_postgres())
    async with servers.one(FOREVER, log=log) as (frozen, api):
        await blob(api)
        begun = await begin(api)
        await runs(api, begun.id)
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            async with servers.one(0) as (_, other):
                operation = await ended(other, begun.id)
                await put(other, text="b")
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
        await until(lambda: "operation_stopped" in log.read_text())
        assert (operation.state, capitalized(operation).lines) == (SUCCEEDED, 3)
        assert await get(api, begun.id) == operation
        assert await text(api) == "b"


async def test_the_end_of_a_run_that_has_lost_its_operation_writes_nothing(
    gate: Gate, tmp_path: Path, database_url: str
) -> None:
    """Another server has it by now; this one hears of that no sooner than at the end."""
    async with together(tmp_path, database_url, count=1, operations_at_once=1) as ((opened, api),):
        await blob(api)
        await blob(api, "acme/others")
        lost, next_one = await begin(api), await begin(api, "acme/others")
        assert await gate.next() == lost.id
        async with opened.host.db.write() as tx:
            other = {"server_id": opened.host.ids(), "lease_until": utc_now() + timedelta(days=1)}
            taken = operations.update().where(operations.c.id == lost.id)
            await tx.execute(taken.values(other | {"fence": operations.c.fence + 1}))
        before = await get(api, lost.id)
        gate.is_open.set()
        assert (await ended(api, next_one.id)).state == SUCCEEDED
        assert (before.state, await get(api, lost.id), await text(api)) == (RUNNING, before, "a\nb\nc")
