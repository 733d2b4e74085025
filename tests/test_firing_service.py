"""Firings as callers see them: listed, watched, and made out of turn."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import acme
import flows
import grpc
import pytest
import schedules
from blobhub.v1 import firing_pb2 as pb
from blobhub_client import page
from blobhub_server.blobtypes.conformance import expect_refusal
from calling import ask
from schedules import DAILY, DEFAULT, DRAFT, NIGHTLY, create, firings, house, trigger
from served import Api
from waiting import until, within_deadline

SUCCESS, SKIPPED = pb.FIRING_STATUS_SUCCESS, pb.FIRING_STATUS_SKIPPED


async def listed(api: Api, **fields) -> list[pb.Firing]:
    return [firing async for firing in page(firings(api).ListFirings, pb.ListFiringsRequest(blob=NIGHTLY, **fields))]


async def watched(api: Api, **fields) -> AsyncIterator[pb.Firing]:
    async for batch in firings(api).WatchFirings(pb.WatchFiringsRequest(blob=NIGHTLY, **fields)):
        for firing in batch.firings:
            yield firing


async def replayed(api: Api, **fields) -> list[tuple[int, str, bool]]:
    """The log: each line's number and schedule, and whether it tells of an end."""
    found = [firing async for firing in watched(api, replay_only=True, **fields)]
    return [(firing.sequence, firing.schedule_alias, firing.HasField("end_time")) for firing in found]


async def ended(api: Api, count: int) -> None:
    """Wait until so many executions of firings have ended."""

    async def enough() -> bool:
        return len([firing for firing in await listed(api) if firing.HasField("end_time")]) == count

    await until(enough)


@pytest.mark.either_database
async def test_a_schedule_is_triggered_whatever_its_times_are(api: Api) -> None:
    await house(api, flows.scripts(1))
    made = await create(api)
    for switch in (lambda: None, schedules.pause, schedules.disable):
        if switch in (schedules.pause, schedules.disable):
            await switch(api, f"{DEFAULT}/report")
        firing = await trigger(api)
        assert (firing.status, firing.kind, firing.schedule_id) == (SUCCESS, pb.FIRING_KIND_TRIGGERED, made.id)
        assert (await firings(api).GetFiring(pb.GetFiringRequest(firing=firing.id))).firing.execution_id
        execution = (await ask(api, "GetExecution", execution=firing.execution_id)).execution
        assert execution.session_id == firing.session_id
    await ended(api, 3)


async def test_a_trigger_made_again_fires_once(api: Api) -> None:
    await house(api)
    await create(api)
    id_ = str(uuid.uuid4())
    assert await trigger(api, request_id=id_) == await trigger(api, request_id=id_)
    assert len((await firings(api).ListFirings(pb.ListFiringsRequest(blob=NIGHTLY))).firings) == 1


@pytest.mark.either_database
async def test_nothing_but_the_default_revision_is_triggered(api: Api) -> None:
    await house(api)
    await create(api)
    await schedules.publish(api)
    await acme.branch(api, blob=NIGHTLY)
    await schedules.update(api, description="Another")
    refused = trigger(api, f"{DRAFT}/report")
    await expect_refusal(refused, grpc.StatusCode.FAILED_PRECONDITION, "SCHEDULE_NOT_ARMED")
    assert (await trigger(api)).status == SUCCESS


@pytest.mark.either_database
async def test_a_trigger_that_would_violate_the_overlap_policy_is_recorded_as_skipped(api: Api) -> None:
    await house(api, flows.delay(3600))
    await create(api, spec=DAILY | {"overlap": "OVERLAP_POLICY_QUEUE_ONE"})
    first, second = await trigger(api), await trigger(api)
    assert (first.status, second.status, second.reason) == (SUCCESS, SKIPPED, "OVERLAP")


@pytest.fixture
async def three(api: Api) -> Api:
    """Two schedules that have been triggered three times."""
    await house(api, flows.scripts(1))
    for alias in ("report", "other"):
        await create(api, alias)
    for number, alias in enumerate(("report", "other", "report"), 1):
        await trigger(api, f"{DEFAULT}/{alias}")
        await ended(api, number)
    return api


async def test_firings_are_listed_the_newest_first_by_schedule_and_status(three: Api) -> None:
    aliases = [firing.schedule_alias for firing in await listed(three, page_size=1)]
    assert aliases == ["report", "other", "report"]
    assert [firing.sequence for firing in await listed(three, order_by="create_time")] == [1, 3, 5]
    (other,) = await listed(three, schedule="other")
    assert await listed(three, schedule=other.schedule_id.upper()) == [other]
    assert await listed(three, status=SKIPPED) == []
    assert len(await listed(three, status=SUCCESS)) == 3
    assert await listed(three, schedule="other", status=SUCCESS) == [other]


@pytest.mark.either_database
@pytest.mark.parametrize("read", [listed, replayed])
async def test_a_schedule_that_the_blob_does_not_have_is_not_found(api: Api, read: Callable[..., Awaitable[object]]) -> None:
    await house(api)
    await acme.blob(api, "acme/weekly", schedules.SCHEDULER)
    elsewhere = await create(api, revision="acme/weekly@draft")
    for reference in ("absent", str(uuid.uuid4()), elsewhere.id):
        await expect_refusal(read(api, schedule=reference), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_firings_of_a_schedule_are_read_after_it_was_taken_out(api: Api) -> None:
    await house(api)
    made = await create(api)
    fired = await trigger(api)
    await schedules.delete(api)
    for reference in ("report", made.id):
        assert [firing.id for firing in await listed(api, schedule=reference)] == [fired.id]


async def test_a_watch_has_each_firing_as_it_fired_and_then_with_its_end(three: Api) -> None:
    aliases = ["report", "report", "other", "other", "report", "report"]
    assert await replayed(three) == [(number, alias, number % 2 == 0) for number, alias in enumerate(aliases, 1)]
    assert [number for number, _, _ in await replayed(three, schedule="other")] == [3, 4]
    assert [number for number, _, _ in await replayed(three, after_sequence=4)] == [5, 6]
    beyond = replayed(three, after_sequence=7)
    await expect_refusal(beyond, grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE")


async def test_a_watch_follows_what_fires(api: Api) -> None:
    await house(api, flows.scripts(1))
    await create(api)
    watch = watched(api)
    following = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0.1)
    fired = await trigger(api)
    first, second = await within_deadline(following), await within_deadline(anext(watch))
    assert (first.id, first.sequence, second.id, second.sequence) == (fired.id, 1, fired.id, 2)
    assert second.HasField("end_time")


@pytest.mark.either_database
@pytest.mark.parametrize("read", [listed, replayed])
async def test_only_a_scheduler_has_firings(api: Api, read: Callable[..., Awaitable[object]]) -> None:
    await house(api)
    await acme.delete_blob(api, NIGHTLY)
    await acme.blob(api, NIGHTLY)
    await expect_refusal(read(api), grpc.StatusCode.FAILED_PRECONDITION, "WRONG_BLOB_TYPE")
