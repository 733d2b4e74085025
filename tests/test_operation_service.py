"""OperationService: lists, turns, cancellations and deletions, and what is kept."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import acme
import grpc
import pytest
from blobhub.v1 import operation_pb2 as pb
from blobhub.v1 import revision_pb2
from blobhub_client import page
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.clock import utc_now
from blobhub_server.platform.blobs.operations import retention
from blobhub_server.platform.blobs.operations.retention import Retention
from calling import outcome
from databases import select
from operations import (
    CANCELLED,
    NOTES,
    PENDING,
    SUCCEEDED,
    Gate,
    begin,
    blob,
    cancel,
    ended,
    gate,
    get,
    put,
    text,
)
from scale import scaled
from served import Api, Served, connected, served
from several_servers import together
from stranger_notes.capitals import CAPITALIZE
from waiting import until, within_deadline

__all__ = ["gate"]


async def listed(api: Api, **fields: object) -> list[str]:
    request = pb.ListOperationsRequest(blob=NOTES, **fields)
    return [operation.id async for operation in page(api.operations.ListOperations, request)]


async def test_operations_are_listed_the_newest_first_by_state_and_kind_in_pages(gate: Gate, api: Api) -> None:
    await blob(api)
    await blob(api, "acme/others")
    begun = [(await begin(api)).id for _ in range(5)]
    await begin(api, "acme/others")
    await cancel(api, begun[2])
    assert await listed(api) == await listed(api, page_size=2) == begun[::-1]
    assert await listed(api, order_by="create_time", page_size=3) == begun
    assert await listed(api, state=CANCELLED) == [begun[2]]
    assert await listed(api, state=SUCCEEDED) == []
    assert await listed(api, kind=CAPITALIZE, page_size=1) == begun[::-1]
    assert await listed(api, kind="notes.other") == []
    gate.is_open.set()
    for id_ in begun:
        await ended(api, id_)
    assert await listed(api, state=SUCCEEDED, order_by="create_time") == [*begun[:2], *begun[3:]]


@pytest.mark.either_database
async def test_a_watch_of_what_does_not_change_tells_that_it_is_current(
    gate: Gate, tmp_path: Path, database_url: str
) -> None:
    async with (
        served(tmp_path / "data", database_url, progress_seconds=0.1) as server,
        connected(server.address, server.admin_key) as api,
    ):
        await blob(api)
        begun = await begin(api)
        await gate.next()
        watch = api.operations.WatchOperation(pb.WatchOperationRequest(operation=begun.id))
        (running,) = (await watch.read()).operations
        while not (idle := await watch.read()).HasField("progress"):
            (running,) = idle.operations
        assert (idle.progress.sequence, len(idle.operations)) == (running.sequence, 0)
        watch.cancel()


@pytest.mark.either_database
async def test_a_watch_ends_with_the_server(gate: Gate, tmp_path: Path, database_url: str) -> None:
    async with AsyncExitStack() as clients:
        async with served(tmp_path / "data", database_url) as server:
            api = await clients.enter_async_context(connected(server.address, server.admin_key))
            await blob(api)
            begun = await begin(api)
            await gate.next()
            watch = api.operations.WatchOperation(pb.WatchOperationRequest(operation=begun.id))
            await watch.read()
            ending = asyncio.create_task(_last_error(watch))
            await asyncio.sleep(0)
        assert await within_deadline(ending) == "SHUTTING_DOWN"


async def _last_error(watch: grpc.aio.UnaryStreamCall) -> str:
    try:
        while await watch.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return "OK"


async def test_one_that_waits_can_be_cancelled_and_organizations_take_turns(
    gate: Gate, tmp_path: Path, database_url: str
) -> None:
    async with (
        served(tmp_path / "data", database_url, operations_at_once=1) as server,
        connected(server.address, server.admin_key) as api,
    ):
        await blob(api)
        await blob(api, "other/notes")
        first, second, third, fourth = [(await begin(api)).id for _ in range(4)]
        assert await gate.next() == first
        of_other = (await begin(api, "other/notes")).id
        assert (await get(api, second)).state == PENDING
        assert (await cancel(api, second)).state == CANCELLED
        gate.is_open.set()
        assert [await gate.next() for _ in range(3)] == [of_other, third, fourth]
        await ended(api, fourth)
        assert second not in gate.left


async def test_a_cancellation_beside_the_end_is_final_or_refused(api: Api) -> None:
    dice, cancelled = random.Random(7), 0
    await blob(api)
    for number in range(scaled(200, least=10)):
        await put(api, text=f"a{number}")
        begun = await begin(api)
        await asyncio.sleep(dice.uniform(0, 0.05))
        told = await outcome(cancel(api, begun.id))
        operation = await ended(api, begun.id)
        assert (told, operation.state) in (("OK", CANCELLED), ("OPERATION_ENDED", SUCCEEDED))
        assert await text(api) == (f"a{number}" if told == "OK" else f"A{number}")
        cancelled += told == "OK"
    print(cancelled, "cancelled")


async def test_the_operations_of_a_revision_that_is_discarded_are_cancelled(gate: Gate, api: Api) -> None:
    await blob(api)
    base = await acme.commit(api, f"{NOTES}@draft")
    draft = await acme.branch(api, base.id, NOTES)
    begun = await begin(api)
    await gate.next()
    await api.revisions.DiscardRevision(revision_pb2.DiscardRevisionRequest(revision=draft.id))
    assert (await ended(api, begun.id)).state == CANCELLED
    await until(lambda: gate.cancelled == [begun.id])


@pytest.mark.parametrize("whole", ["blob", "organization"])
async def test_the_operations_of_what_is_deleted_stop_and_are_collected(
    gate: Gate, server: Served, api: Api, database_url: str, whole: str
) -> None:
    await blob(api)
    begun = await begin(api)
    await gate.next()
    if whole == "blob":
        await acme.delete_blob(api, NOTES)
    else:
        await acme.delete_organization(api, cascade=True)
    assert await outcome(get(api, begun.id)) == "NOT_FOUND"
    await until(lambda: gate.cancelled == [begun.id])

    async def is_collected() -> bool:
        return await select(database_url, "SELECT count(*) FROM operations") == [(0,)]

    await until(is_collected)


async def test_what_ended_long_ago_or_is_too_much_of_a_blob_is_removed(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MAX_ENDED", 3)
    monkeypatch.setattr(retention, "ROWS", 1)
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        await blob(api)
        begun = [(await ended(api, (await begin(api)).id)).id for _ in range(6)]
        await Retention(opened.host.db, opened.host.clock).take_pass()
        assert await listed(api, order_by="create_time") == begun[3:]
        late = utc_now() + retention.MAX_AGE - timedelta(hours=1)
        await Retention(opened.host.db, lambda: late).take_pass()
        assert await listed(api, order_by="create_time") == begun[3:]
        await Retention(opened.host.db, lambda: late + timedelta(hours=2)).take_pass()
        assert await listed(api) == []
