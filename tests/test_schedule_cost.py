"""What is asked about schedules costs little, however many are stored."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import acme
import pytest
from blobhub.v1 import firing_pb2
from blobhub_server.clock import utc_now
from blobhub_server.scheduler import upkeep
from calling import ask
from figures import Figure
from many_schedules import copy_schedule
from plans import Statement, asked, database
from scale import scaled
from schedules import NIGHTLY, ONCE, SCHEDULER, create, firings, get, house, listed, trigger, upcoming
from served import Api, connected, served
from waiting import until

STORED = scaled(200_000, least=20_000)
YEAR = timedelta(days=365)
ABOUT = ("FROM schedules", "FROM schedule_versions", "FROM firings", "FROM firing_logs")
SEEN = {
    "what is due": "next_due_time <=",
    "when the next one is due": "ORDER BY schedules.next_due_time",
    "what waits for an end": "queued_nominal_time IS NOT NULL",
    "with which zone data the next times were reckoned": "ORDER BY schedules.tzdata",
    "what was reckoned from a time to come": "schedules.reckon_time >",
    "which schedules have too many firings": "schedules.firing_count >",
    "which firings are old": "firings.id <",
    "the next times of a blob": "schedules.next_nominal_time, schedules.id)",
    "the numbers of firings": "firings.sequence >",
}
"""What is asked, and how that is seen."""


async def use(api: Api, schedule_id: str) -> None:
    """Fire a schedule, and call everything that reads schedules."""
    assert len(await listed(api)) == 50
    assert len((await upcoming(api)).firings) == 50
    assert (await trigger(api, schedule_id)).execution_id
    soon = (utc_now() + timedelta(seconds=1)).replace(tzinfo=None).isoformat()
    made = await create(api, "soon", ONCE | {"timezone": "UTC", "invocation_time": soon}, revision="acme/other@draft")

    async def has_fired() -> bool:
        return (await get(api, made.id)).HasField("last_nominal_time")

    await until(has_fired)
    assert len((await firings(api).ListFirings(firing_pb2.ListFiringsRequest(blob=NIGHTLY))).firings) == 1
    async for _ in firings(api).WatchFirings(firing_pb2.WatchFiringsRequest(blob=NIGHTLY, replay_only=True)):
        pass


@pytest.mark.timeout(3600)
async def test_no_statement_goes_over_all_schedules_that_are_stored(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    monkeypatch.setattr(upkeep, "LOOK_SECONDS", 0.05)
    async with served(tmp_path, database_url) as server, connected(server.address, server.admin_key) as api:
        await house(api)
        await acme.blob(api, "acme/other", SCHEDULER)
        made, key = await create(api), server.admin_key
        first_due = round((utc_now() + YEAR).timestamp()) * 1_000_000
        await copy_schedule(database_url, made.id, STORED, first_due=first_due, step=1, firing_count=5)
    with asked() as statements:
        async with served(tmp_path, database_url) as server, connected(server.address, key) as api:
            await use(api, made.id)
            await until(lambda: all(any(part in each.sql for each in statements) for part in SEEN.values()))
            await cheap(database_url, statements, figure)
            statements.clear()
            await ask(api, "DeleteBlob", blob=NIGHTLY, cascade=True)
            await until(lambda: collecting(statements))
            await cheap(database_url, collecting(statements), figure)


def collecting(statements: list[Statement]) -> list[Statement]:
    """Those that look for schedules of deleted blobs."""
    return [each for each in statements if "schedules.blob_id" in each.sql and "next_due_time" not in each.sql]


async def cheap(url: str, statements: list[Statement], figure: Figure) -> None:
    """Each of the statements about schedules takes little, now that so many are stored; those that count are for others."""
    about = {each.sql: each for each in statements if not each.counts and any(part in each.sql for part in ABOUT)}
    assert about
    most = 0
    async with database(url) as opened:
        for statement in about.values():
            work = await opened.work(statement)
            assert work.effort <= opened.little, statement.sql
            most = max(most, work.effort)
    figure(f"{len(about)} statements with {STORED} schedules stored, each with an effort of {most} of {opened.little}")
