"""Backfills: the missing times of a range fire, each once, however often and by how many they are asked for."""

from __future__ import annotations

import asyncio
import uuid
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import flows
import grpc
import pytest
import schedules
from blobhub.v1 import firing_pb2 as pb
from blobhub_client import page
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from blobhub_server.scheduler.engine import backfill as engine
from calling import ask
from databases import select
from firing import SetClock, engines, utc
from google.rpc import error_details_pb2
from schedules import DAILY, DEFAULT, NIGHTLY, backfill, backfilling, create, firings, house
from served import Api, Served, connected, served
from waiting import until

HOURLY = DAILY | {"cron_expression": "0 * * * *", "timezone": "UTC"}
DAY = ("2024-03-01T00:00:00Z", "2024-03-01T23:59:59Z")
"""A range in which an hourly schedule has 24 times."""
BACKFILLED, CONDITION = pb.FIRING_KIND_BACKFILLED, grpc.StatusCode.FAILED_PRECONDITION


def times(found: list[pb.Firing]) -> list[datetime]:
    return [firing.nominal_time.ToDatetime() for firing in found]


def hours(count: int, start: datetime = datetime(2024, 3, 1)) -> list[datetime]:
    return [start + timedelta(hours=number) for number in range(count)]


async def listed(api: Api, **fields: Any) -> list[pb.Firing]:
    request = pb.ListFiringsRequest(blob=NIGHTLY, order_by="create_time", **fields)
    return [firing async for firing in page(firings(api).ListFirings, request)]


@pytest.mark.either_database
@pytest.mark.parametrize("switch", [None, schedules.pause, schedules.disable])
async def test_the_missing_times_of_a_range_fire_once(api: Api, switch: Any) -> None:
    await house(api)
    await create(api, spec=HOURLY)
    if switch is not None:
        await switch(api, f"{DEFAULT}/report")
    half = await backfill(api, DAY[0], "2024-03-01T11:00:00Z")
    assert times(half) == hours(12)
    assert {(firing.kind, firing.status) for firing in half} == {(BACKFILLED, pb.FIRING_STATUS_SUCCESS)}
    assert times(await backfill(api, *DAY)) == hours(24)
    again = await backfill(api, *DAY)
    assert times(again) == hours(24)
    assert again[:12] == half
    assert times(await listed(api)) == hours(24)


async def test_many_backfills_of_one_range_and_some_that_are_cut_off_fire_each_time_once(api: Api, server: Served) -> None:
    await house(api)
    await create(api, spec=HOURLY)
    begin, end = "2024-03-01T00:00:00Z", "2024-03-04T00:00:00Z"

    async def cut_off() -> None:
        async for _ in (stream := backfilling(api, begin, end)):
            stream.cancel()
            return

    whole = await asyncio.gather(*(backfill(api, begin, end) for _ in range(3)), *(cut_off() for _ in range(3)))
    for found in whole[:3]:
        assert times(found) == hours(73)
    assert times(await listed(api)) == hours(73)
    executions = "SELECT count(*), count(DISTINCT cause_id) FROM executions WHERE cause_kind = 'firing'"
    assert [tuple(row) for row in await select(server.settings.url, executions)] == [(73, 73)]


async def test_a_time_that_was_skipped_is_missing_and_one_that_fired_or_is_to_come_is_not(
    tmp_path: Path, database_url: str
) -> None:
    """After a day without a server the last time is caught up, and the others are missed."""
    clock = SetClock(utc("2001-01-01 00:00"))
    with engines(clock) as found:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            await house(api)
            await create(api, spec=HOURLY)
            await found[0].arm(utc("2024-03-01 00:30"))
            await found[0].set(utc("2024-03-02 00:30"))
            before = await found[0].settled()
            assert [f"{each.nominal_time:%d %H} {each.kind} {each.status}" for each in before] == [
                "01 23 caught_up skipped",
                "02 00 caught_up success",
            ]
            assert times(await backfill(api, DAY[0], "2024-03-02T12:00:00Z")) == hours(24)
            await found[0].set(utc("2024-03-02 01:00"))
            assert [each.kind for each in await found[0].settled()][-1] == "scheduled"


async def test_a_clock_that_is_set_back_fires_nothing_that_was_backfilled(tmp_path: Path, database_url: str) -> None:
    clock = SetClock(utc("2024-03-01 12:30"))
    with engines(clock) as found:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            await house(api)
            await create(api, spec=HOURLY)
            await schedules.disable(api, f"{DEFAULT}/report")
            await backfill(api, *DAY)
            row = await found[0].schedule()
            assert row.last_nominal_time == utc("2024-03-01 23:00")
            await found[0].arm(utc("2024-03-01 12:30"), enabled=True, next_nominal_time=None, next_due_time=None)
            await found[0].have_due(utc("2024-03-01 12:00"))
            assert {each.kind for each in await found[0].settled()} == {"backfilled"}


@pytest.mark.either_database
async def test_where_executions_may_not_overlap_each_time_waits_for_the_end_of_the_one_before(
    api: Api, server: Served
) -> None:
    await house(api, flows.delay(0.2))
    await create(api, spec=HOURLY | {"overlap": "OVERLAP_POLICY_SKIP"})
    assert times(await backfill(api, DAY[0], "2024-03-01T03:00:00Z")) == hours(4)
    spans = "SELECT create_time, end_time FROM executions WHERE cause_kind = 'firing' ORDER BY create_time"

    async def ended() -> list[Any]:
        rows = await select(server.settings.url, spans)
        return rows if all(row[1] for row in rows) else []

    ran = await until(ended)
    assert len(ran) == 4
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(ran))


@pytest.mark.either_database
async def test_what_the_target_refuses_ends_the_backfill_and_stays_missing(api: Api) -> None:
    await house(api)
    await create(api, spec=HOURLY | {"invocation_target": schedules.TARGET | {"definition": "later"}})
    error = await expect_refusal(backfill(api, *DAY), CONDITION, "BACKFILL_REFUSED")
    info = error_details_pb2.ErrorInfo()
    assert unpack(error, info)
    assert dict(info.metadata) == {"nominal_time": "2024-03-01T00:00:00+00:00", "refusal": "NOT_FOUND"}
    assert not await listed(api)
    await api.put(flows.steps(1), alias="later")
    assert times(await backfill(api, *DAY)) == hours(24)


@pytest.mark.either_database
async def test_what_comes_before_a_refused_time_fires(api: Api) -> None:
    await house(api, flows.code("set_data_output('result', inputs.given)"))
    expression = "1 / (0 if nominal_time == '2024-03-01T03:00:00Z' else 1)"
    value = f'{{"type": "expression", "expression": "{expression}"}}'
    await create(api, spec=HOURLY | {"input_data": [{"alias": "given", "value_json": value}]})
    error = await expect_refusal(backfill(api, *DAY), CONDITION, "BACKFILL_REFUSED")
    assert "2024-03-01T03" in (error.details() or "")
    assert times(await listed(api)) == hours(3)


@pytest.mark.either_database
async def test_an_input_has_the_time_before_by_the_timetable(api: Api) -> None:
    await house(api, flows.code("set_data_output('result', inputs.given)"))
    value = '{"type": "template", "template": "{{ previous_time }}"}'
    await create(api, spec=HOURLY | {"input_data": [{"alias": "given", "value_json": value}]})
    made = await backfill(api, DAY[0], "2024-03-01T01:00:00Z")
    given = [(await ask(api, "GetExecution", execution=firing.execution_id)).execution.input_data for firing in made]
    assert [item.value.string_value for (item,) in given] == ["2024-02-29T23:00:00Z", "2024-03-01T00:00:00Z"]


async def test_a_call_fires_so_many_at_most_and_says_where_to_go_on(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_FIRINGS", 30)
    await house(api)
    await create(api, spec=HOURLY)
    request_id = str(uuid.uuid4())
    for fired, more in ((30, True), (60, True), (73, False)):
        stream = backfilling(api, DAY[0], "2024-03-04T00:00:00Z", request_id=request_id)
        steps = [step async for step in stream]
        assert times([firing for step in steps for firing in step.firings]) == hours(fired)
        assert steps[-1].HasField("next_start_time") is more


@pytest.mark.either_database
@pytest.mark.parametrize("end", ["2024-02-29T23:59:59Z", "2025-03-03T00:00:00Z"])
async def test_a_range_has_366_days_at_most_and_ends_after_it_begins(api: Api, end: str) -> None:
    await house(api)
    await create(api)
    await expect_refusal(backfill(api, DAY[0], end), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE")


@pytest.mark.either_database
async def test_nothing_but_the_default_revision_is_backfilled(api: Api) -> None:
    await house(api)
    await create(api)
    await schedules.delete(api)
    other = await create(api, "other")
    await schedules.publish(api)
    await ask(api, "CreateRevision", blob=NIGHTLY)
    await schedules.update(api, f"{schedules.DRAFT}/other", description="Another")
    refused = backfill(api, *DAY, reference=f"{schedules.DRAFT}/other")
    await expect_refusal(refused, CONDITION, "SCHEDULE_NOT_ARMED")
    assert {firing.schedule_id for firing in await backfill(api, *DAY, reference=f"{DEFAULT}/other")} == {other.id}
