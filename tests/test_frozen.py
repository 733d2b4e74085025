"""Two servers on one PostgreSQL, one of which is frozen (SIGSTOP) and goes on later, as a paused machine does."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import psutil
import pytest
from blobhub.v1 import event_pb2
from blobhub.v1 import execution_pb2 as pb
from blobhub_client import page
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.ids import Uuid7
from calling import ask
from databases import FreshPostgres, select
from faulty import command
from figures import Figure
from ground import PASSING, WORK, patiently
from interpreting import TERMINAL
from scale import scaled
from served import Api, ServerProcess, connected
from waiting import DEADLINE_SECONDS, until, within_deadline

FREEZES = scaled(20, least=2)
EXECUTIONS = scaled(50, least=12)
LEASE_SECONDS = 2


@asynccontextmanager
async def two(
    tmp_path: Path, url: str, lease_seconds: float = LEASE_SECONDS
) -> AsyncIterator[tuple[list[ServerProcess], list[Api]]]:
    """Two servers, each a process, and a client of each."""
    async with AsyncExitStack() as stack:
        servers = [
            ServerProcess(tmp_path / "data", url, command=command(tmp_path / "freeze"), lease_seconds=lease_seconds)
            for _ in range(2)
        ]
        for server in servers:
            await stack.enter_async_context(server.running())
        key = servers[0].admin_key
        yield servers, [await stack.enter_async_context(connected(server.address, key)) for server in servers]


async def watched(api: Api, execution_id: str) -> list[event_pb2.Event]:
    """The events of an execution to its end. A watch is resumed where its server has lost the database for a moment."""
    seen: list[event_pb2.Event] = []
    while True:
        after = seen[-1].execution_sequence if seen else 0
        request = pb.WatchExecutionRequest(execution=execution_id, after_execution_sequence=after)
        try:
            async for batch in api.executions.WatchExecution(request, timeout=DEADLINE_SECONDS):
                seen.extend(batch.events)
            return seen
        except grpc.aio.AioRpcError as error:
            if reason_of(error) not in PASSING:
                raise
            await asyncio.sleep(0.05)


def check(events: list[event_pb2.Event]) -> None:
    """A log is dense, and goes to its end, of which there is one."""
    assert [event.execution_sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.type for event in events if event.type in TERMINAL] == ["flow.exited"]
    assert events[-1].type == "flow.exited"


class Frozen:
    """A server that is frozen again and again while the other takes over what it runs."""

    def __init__(self, url: str, session_id: str) -> None:
        self._url = url
        self._session_id = session_id
        self._dice = random.Random(20261127)
        self._ids = Uuid7()
        self.started: list[str] = []
        self.watches: Counter[str] = Counter()

    async def freeze(self, server: ServerProcess, api: Api, other: Api) -> None:
        """Freeze a server under running executions until the other has ended them; watch them there and here."""
        ids = await asyncio.gather(*(self._start(api) for _ in range(EXECUTIONS)))
        early = [asyncio.create_task(watched(client, id_)) for client in (api, other) for id_ in ids]
        await asyncio.sleep(self._dice.uniform(0, 0.3))
        os.kill(server.pid, signal.SIGSTOP)
        try:
            await until(self._all_ended)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        # In the first instant: what it had in memory is old, and it has not heard of what the other wrote.
        late = await within_deadline(asyncio.gather(*(watched(api, id_) for id_ in ids)))
        states = {(await patiently(api, "GetExecution", execution=id_)).execution.state for id_ in ids}
        assert states == {pb.EXECUTION_STATE_COMPLETED}
        for events in (*late, *await within_deadline(asyncio.gather(*early))):
            check(events)
        self.watches["begun before"] += len(early)
        self.watches["begun right after"] += len(late)
        self.started += ids

    async def _start(self, api: Api) -> str:
        fields = {"session": self._session_id, "spec": {"definition": "workflow"}, "request_id": self._ids()}
        return (await patiently(api, "StartExecution", **fields)).execution.id

    async def _all_ended(self) -> bool:
        return await select(self._url, "SELECT count(*) FROM executions WHERE end_time IS NULL") == [(0,)]


@pytest.mark.timeout(3600)
async def test_a_server_that_is_frozen_past_its_lease_loses_nothing_and_its_watchers_miss_nothing(
    tmp_path: Path, fresh_postgres: FreshPostgres, figure: Figure
) -> None:
    url = await fresh_postgres()
    async with two(tmp_path, url) as (servers, apis):
        session_id = await apis[0].session(WORK)
        frozen = Frozen(url, session_id)
        for number in range(FREEZES):
            which = number % 2
            await frozen.freeze(servers[which], apis[which], apis[1 - which])
        listing = pb.ListExecutionsRequest(blob="acme/pipeline", session=session_id, page_size=1000)
        for api in apis:
            listed = [item async for item in page(api.executions.ListExecutions, listing)]
            assert {item.id for item in listed} == set(frozen.started)
            assert {item.state for item in listed} == {pb.EXECUTION_STATE_COMPLETED}
        moved = dict(await select(url, "SELECT fence > 1, count(*) FROM executions GROUP BY 1"))
    assert moved[True] > 0, "nothing was taken over"
    figure(
        f"{FREEZES} freezes under {EXECUTIONS} executions each: 0 of {len(frozen.started)} lost, 0 failed, "
        f"{moved[True]} taken over; watches, all dense: {dict(frozen.watches)}"
    )


async def test_a_server_that_freezes_in_a_transaction_holds_up_the_changes_of_the_other_for_a_while_only(
    tmp_path: Path, fresh_postgres: FreshPostgres
) -> None:
    """It holds the blob's row, and the head of the audit log, until the database ends its idle transaction.

    This is what `frozen-server-blocks-the-other.py` shows.
    """
    async with two(tmp_path, await fresh_postgres(), lease_seconds=15) as (servers, (api, other)):
        await api.session(WORK)
        process, freeze = psutil.Process(servers[0].pid), tmp_path / "freeze"
        freeze.touch()
        frozen = asyncio.create_task(_outcome(lambda: ask(api, "UpdateBlob", **_description("of the frozen one"))))
        try:
            await until(lambda: process.status() == psutil.STATUS_STOPPED)
            assert not freeze.exists()
            changes = [
                ask(other, "UpdateBlob", **_description("of the other")),
                ask(other, "CreateOrganization", alias="elsewhere"),
            ]
            await within_deadline(asyncio.gather(*changes))
        finally:
            process.resume()
        assert await within_deadline(frozen) == grpc.StatusCode.UNAVAILABLE
        blob = await patiently(api, "GetBlob", blob="acme/pipeline")
        assert blob.blob.description == "of the other"
        await patiently(api, "UpdateBlob", **_description("of the frozen one, again"))


def _description(text: str) -> dict[str, object]:
    return {"blob": "acme/pipeline", "description": text, "update_mask": {"paths": ["description"]}}


async def _outcome(call: Callable[[], Awaitable[object]]) -> grpc.StatusCode:
    try:
        await call()
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
