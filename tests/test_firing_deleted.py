"""Schedules of deleted schedulers fire nothing, although their rows wait to be collected."""

from __future__ import annotations

import asyncio
from pathlib import Path

import acme
import flows
import pytest
from blobhub_server.clock import utc_now
from blobhub_server.platform.blobs.collection import Collector
from databases import select
from firing import HOUR, engines
from many_schedules import copy_schedule
from plans import Statement, asked, database
from scale import scaled
from schedules import NIGHTLY, SCHEDULER, create, house
from served import connected, served
from waiting import until

MANY = scaled(200_000, least=2_000)


async def _rest(_: Collector) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("whole", ["scheduler", "organization"])
async def test_a_schedule_that_waits_to_be_collected_is_never_due(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, whole: str
) -> None:
    monkeypatch.setattr(Collector, "collect_forever", _rest)
    with engines() as found:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            firer = found[0]
            await house(api, flows.steps(1))
            gone = await create(api)
            if whole == "scheduler":
                await acme.delete_blob(api, NIGHTLY, cascade=True)
                await acme.blob(api, NIGHTLY, SCHEDULER)
            else:
                await acme.delete_organization(api, "acme", cascade=True)
                await house(api, flows.steps(1))
            made = await create(api)
            assert {each.id for each in await firer.schedules()} == {gone.id, made.id}, "its row is there still"
            # What is due the longest comes first, so one that could fire would have.
            for number in (1, 2):
                await firer.have_due(utc_now())
                assert {each.schedule_id for each in await firer.fired(number)} == {made.id}
            due = {each.id: each.next_due_time for each in await firer.schedules()}
            assert due[gone.id] is None, "the engine has let go of it, so that nobody goes past it again"
            assert due[made.id] is not None


@pytest.mark.timeout(3600)
async def test_however_many_wait_to_be_collected_others_are_found_and_fire(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Collector, "collect_forever", _rest)
    with engines() as found, asked() as statements:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            await house(api, flows.steps(1))
            gone, soon = await create(api), round((utc_now() + HOUR).timestamp()) * 1_000_000
            await copy_schedule(database_url, gone.id, MANY, first_due=soon, step=1)
            await acme.delete_blob(api, NIGHTLY, cascade=True)
            await acme.blob(api, NIGHTLY, SCHEDULER)
            statements.clear()
            made = await create(api)
            await until(lambda: bool(_about_the_next(statements)))
            async with database(database_url) as opened:
                for statement in _about_the_next(statements):
                    assert (await opened.work(statement)).effort <= opened.little, statement.sql
            await found[0].have_due(utc_now())
            assert {each.schedule_id for each in await found[0].fired(1)} == {made.id}
            await until(lambda: _is_let_go_of(database_url))


def _about_the_next(statements: list[Statement]) -> list[Statement]:
    """Those that ask for what is due, or will be."""
    return [each for each in statements if "ORDER BY schedules.next_due_time" in each.sql]


async def _is_let_go_of(url: str) -> bool:
    """Whether no schedule of a deleted blob is due any more."""
    left = "SELECT count(*) FROM schedules WHERE next_due_time IS NOT NULL AND blob_id NOT IN (SELECT id FROM blobs)"
    return await select(url, left) == [(0,)]
