"""Schedules of deleted schedulers fire nothing, although their rows wait to be collected."""

from __future__ import annotations

import asyncio
from pathlib import Path

import acme
import flows
import pytest
from blobhub_server.clock import utc_now
from blobhub_server.platform.blobs.collection import Collector
from firing import engines
from schedules import NIGHTLY, SCHEDULER, create, house
from served import connected, served


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
            assert due[gone.id] < due[made.id]
