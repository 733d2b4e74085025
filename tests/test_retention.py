"""Retention: firings that are old or too many are removed, and nothing fires again or is told wrongly for that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import flows
import grpc
import pytest
from blobhub.v1 import firing_pb2 as pb
from blobhub_server import app
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from blobhub_server.scheduler import retention, upkeep
from blobhub_server.scheduler.engine.tails import Tails
from blobhub_server.scheduler.settings import SchedulerSettings
from blobhub_server.scheduler.store import firing_log as log_store
from calling import ask
from databases import execute, select
from firing import SetClock, engines, utc
from google.rpc import error_details_pb2
from scale import scaled
from schedules import DAILY, DEFAULT, NIGHTLY, backfill, create, disable, firings, house, trigger
from served import Api, connected, served
from waiting import until
from wall_clock import WallClock

HOURLY = DAILY | {"cron_expression": "0 * * * *", "timezone": "UTC"}
BEGIN, THIRD, FOURTH, SIXTH = (f"2024-03-01T0{hour}:00:00Z" for hour in (0, 2, 3, 5))
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MANY = scaled(2_000, least=250)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    """The clock of the servers that are started, which look all the time for firings to remove."""
    made = WallClock()
    monkeypatch.setattr(app, "utc_now", made)
    monkeypatch.setattr(upkeep, "LOOK_SECONDS", 0.05)
    return made


@asynccontextmanager
async def scheduler(
    folder: Path, url: str, *, definition: str = "", spec: Any = HOURLY, **settings: Any
) -> AsyncIterator[Api]:
    """A server with a schedule `report` that does not fire by itself."""
    async with served(folder, url, **settings) as server, connected(server.address, server.admin_key) as api:
        await house(api, definition)
        await create(api, spec=spec)
        await disable(api, f"{DEFAULT}/report")
        yield api


async def kept(api: Api, **fields: Any) -> list[pb.Firing]:
    request = pb.ListFiringsRequest(blob=NIGHTLY, order_by="create_time", page_size=1000, **fields)
    return list((await firings(api).ListFirings(request)).firings)


async def left(api: Api, count: int, **fields: Any) -> list[pb.Firing]:
    """What is kept, once it is no more than so many."""

    async def few() -> bool:
        return len(await kept(api, **fields)) <= count

    await until(few)
    return await kept(api, **fields)


async def all_ended(api: Api) -> None:
    async def none_runs() -> bool:
        return all(firing.HasField("end_time") for firing in await kept(api))

    await until(none_runs)


async def watched(api: Api, after_sequence: int = 0) -> list[pb.Firing]:
    request = pb.WatchFiringsRequest(blob=NIGHTLY, after_sequence=after_sequence, replay_only=True)
    return [firing async for message in firings(api).WatchFirings(request) for firing in message.firings]


def hours(found: list[pb.Firing]) -> list[int]:
    return [firing.nominal_time.ToDatetime().hour for firing in found]


def metadata_of(error: grpc.aio.AioRpcError) -> dict[str, str]:
    info = error_details_pb2.ErrorInfo()
    assert unpack(error, info)
    return dict(info.metadata)


async def test_firings_go_when_they_are_old_and_the_newer_stay(tmp_path: Path, database_url: str, clock: WallClock) -> None:
    async with scheduler(tmp_path, database_url, firing_retention_days=30) as api:
        await backfill(api, BEGIN, THIRD)
        triggered = await trigger(api)
        await all_ended(api)
        clock.ahead = 10 * DAY
        await backfill(api, FOURTH, SIXTH)
        await all_ended(api)
        clock.ahead = 31 * DAY
        assert hours(await left(api, 3)) == [3, 4, 5]
        await expect_refusal(
            firings(api).GetFiring(pb.GetFiringRequest(firing=triggered.id)), grpc.StatusCode.NOT_FOUND, "NOT_FOUND"
        )
        assert [row[0] for row in await select(database_url, "SELECT firing_count FROM schedules")] == [3]


async def test_of_too_many_firings_of_a_schedule_the_oldest_go_and_other_schedules_keep_theirs(
    tmp_path: Path, database_url: str, clock: WallClock
) -> None:
    async with scheduler(tmp_path, database_url, max_firings_per_schedule=3) as api:
        other = await create(api, "other", HOURLY)
        await disable(api, f"{DEFAULT}/other")
        await backfill(api, BEGIN, THIRD, reference=f"{DEFAULT}/other")
        await backfill(api, BEGIN, SIXTH)
        await all_ended(api)
        clock.ahead = 2 * HOUR
        assert hours(await left(api, 3, schedule="report")) == [3, 4, 5]
        assert hours(await kept(api, schedule=other.id)) == [0, 1, 2]


async def test_a_watch_begins_where_the_log_does_and_none_resumes_before_it(
    tmp_path: Path, database_url: str, clock: WallClock
) -> None:
    async with scheduler(tmp_path, database_url, max_firings_per_schedule=3) as api:
        await backfill(api, BEGIN, THIRD)
        await all_ended(api)
        await backfill(api, FOURTH, SIXTH)
        await all_ended(api)
        whole = await watched(api)
        assert [firing.sequence for firing in whole] == list(range(1, 13))
        clock.ahead = 2 * HOUR
        await left(api, 3)
        rest = await watched(api)
        assert rest == whole[6:]
        assert await watched(api, 8) == whole[8:]
        for after in (1, 5):
            error = await expect_refusal(watched(api, after), grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE")
            assert metadata_of(error) == {"first_sequence": "7", "last_sequence": "12"}


async def test_a_watch_under_which_lines_are_removed_skips_none_and_ends(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scheduler(tmp_path, database_url) as api:
        await backfill(api, BEGIN, THIRD)
        await all_ended(api)
        read = log_store.lines

        async def removed_first(*args: Any, **fields: Any) -> Any:
            await execute(database_url, "DELETE FROM firings WHERE sequence < 5 AND end_sequence < 5")
            await execute(database_url, "UPDATE firing_logs SET first_sequence = 5")
            return await read(*args, **fields)

        monkeypatch.setattr(log_store, "lines", removed_first)
        monkeypatch.setattr(Tails, "read", lambda *_: [])  # what is in memory is not read out of the database
        await expect_refusal(watched(api, 1), grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE")


async def test_what_was_forgotten_is_not_backfilled_and_what_is_later_is(
    tmp_path: Path, database_url: str, clock: WallClock
) -> None:
    async with scheduler(tmp_path, database_url, max_firings_per_schedule=1) as api:
        await backfill(api, BEGIN, THIRD)
        await all_ended(api)
        clock.ahead = 2 * HOUR
        assert hours(await left(api, 1)) == [2]
        for start in (BEGIN, "2024-03-01T01:00:00Z"):
            error = await expect_refusal(
                backfill(api, start, SIXTH), grpc.StatusCode.FAILED_PRECONDITION, "BACKFILL_FORGOTTEN"
            )
            assert metadata_of(error) == {
                "forgotten_time": "2024-03-01T01:00:00+00:00",
                "first_time": "2024-03-01T02:00:00+00:00",
            }
        assert hours(await backfill(api, THIRD, SIXTH)) == [2, 3, 4, 5]
        assert (await trigger(api)).status == pb.FIRING_STATUS_SUCCESS
        executions = "SELECT count(*), count(DISTINCT cause_id) FROM executions WHERE cause_kind = 'firing'"
        assert [tuple(row) for row in await select(database_url, executions)] == [(7, 7)]


async def test_what_somebody_triggered_is_for_no_time_so_nothing_is_forgotten_with_it(
    tmp_path: Path, database_url: str, clock: WallClock
) -> None:
    async with scheduler(tmp_path, database_url, firing_retention_days=1) as api:
        await trigger(api)
        await all_ended(api)
        clock.ahead = 2 * DAY
        assert await left(api, 0) == []
        assert hours(await backfill(api, BEGIN, BEGIN)) == [0]


async def test_what_runs_stays_and_goes_when_its_execution_is_gone(
    tmp_path: Path, database_url: str, clock: WallClock
) -> None:
    """The second firing is newer than the first, so that one was passed over when the second is gone."""
    spec = HOURLY | {"overlap": "OVERLAP_POLICY_SKIP"}
    definition = flows.delay(86_400.0)
    async with scheduler(tmp_path, database_url, definition=definition, spec=spec, firing_retention_days=0.1) as api:
        running, skipped = await trigger(api), await trigger(api)
        assert skipped.status == pb.FIRING_STATUS_SKIPPED
        clock.ahead = 3 * HOUR
        assert [firing.id for firing in await left(api, 1)] == [running.id]
        assert (await trigger(api)).status == pb.FIRING_STATUS_SKIPPED
        await ask(api, "DeleteBlob", blob="acme/pipeline", cascade=True)
        assert len(await left(api, 1)) == 1
        clock.ahead = 6 * HOUR
        assert await left(api, 0) == []


async def test_a_clock_that_is_set_back_fires_nothing_that_was_forgotten(
    tmp_path: Path, database_url: str, clock: WallClock
) -> None:
    set_back = SetClock(utc("2024-03-01 12:30"))
    with engines(set_back) as found:
        async with scheduler(tmp_path, database_url) as api:
            await backfill(api, BEGIN, THIRD)
            await all_ended(api)
            clock.ahead = 2 * HOUR
            (firer,) = found  # Nothing else is done beside the calls where an engine has a clock of its own.
            settings = SchedulerSettings(max_firings_per_schedule=1)
            await retention.Retention(firer.host, firer.invocable, settings).remove_surplus()
            assert hours(await kept(api)) == [2]
            set_back.now = utc("2024-03-01 01:00")
            await firer.arm(set_back.now, enabled=True, next_nominal_time=None, next_due_time=None)
            await firer.have_due(set_back.now)
            assert [firing.kind for firing in await firer.settled()] == ["backfilled"]
            set_back.now = utc("2024-03-01 06:00")
            await firer.have_due(set_back.now)
            assert "scheduled" in {firing.kind for firing in await firer.settled()}


async def test_many_go_in_short_transactions(
    tmp_path: Path, database_url: str, clock: WallClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of a firing, half of them old and half of them too many."""
    parts: list[int] = []
    remove = retention.Retention._remove_some

    async def counted(self: Any, tx: Any, firing_ids: Any, end: Any) -> None:
        parts.append(len(firing_ids))
        await remove(self, tx, firing_ids, end)

    monkeypatch.setattr(retention.Retention, "_remove_some", counted)
    async with scheduler(tmp_path, database_url, max_firings_per_schedule=10) as api:
        await backfill(api, BEGIN, BEGIN)
        await all_ended(api)
        await copy_firings(database_url, MANY)
        clock.ahead = 2 * HOUR
        assert len(await left(api, 10)) == 10
        assert max(parts) == retention.ROWS
        assert sum(parts) == MANY - 9
        rows = await select(database_url, "SELECT firing_count FROM schedules")
        assert [row[0] for row in rows] == [10]


async def copy_firings(url: str, count: int) -> None:
    """Make copies of the only firing, each of a later time and with later numbers."""
    copied = {
        "id": "substr(id, 1, 24) || substr(CAST(1000000000000 + n AS TEXT), 2)",
        "nominal_time": "nominal_time + CAST(n AS BIGINT) * 3600000000",
        "sequence": "2 * n + 1",
        "end_sequence": "2 * n + 2",
    }
    names = [row[0] for row in await select(url, "SELECT id FROM firings")]
    assert len(names) == 1
    columns = [column.name for column in log_store.firings.columns]
    chosen = ", ".join(copied.get(name, name) for name in columns)
    numbers = f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})"
    await execute(url, f"INSERT INTO firings ({', '.join(columns)}) {numbers} SELECT {chosen} FROM firings, numbers")
    await execute(url, f"UPDATE firing_logs SET last_sequence = {2 * count + 2}")
    await execute(url, f"UPDATE schedules SET firing_count = {count + 1}")
