"""What fires when the default revision moves, a schedule is paused, or whoever it acts for leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import acme
import pytest
import schedules
from acme import WRITE
from blobhub_server.clock import utc_now
from blobhub_server.scheduler.rules.firing import FiringKind, FiringStatus
from calling import ask
from firing import DAY, MINUTE, Firer, SetClock, engines, utc
from schedules import DAILY, DEFAULT, DRAFT, NIGHTLY, ONCE, create, get, house, update
from served import Api, Served, connected, served

Hub = tuple[Firer, Api, Served]
Fired = dict[str, str]


@pytest.fixture
async def hub(tmp_path: Path, database_url: str) -> AsyncIterator[Hub]:
    """A server whose engine goes by a clock of the test's, with a scheduler without schedules, and a workflow for them."""
    with engines(SetClock(utc("2001-01-01 00:00"))) as found:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            await house(api)
            yield found[0], api, server


async def day_after(firer: Firer, time: datetime) -> Fired:
    """Have the next time come after that one of daily schedules; what has fired then: the digests, by the aliases."""
    await firer.set(time + DAY)
    return {each.schedule_alias: each.schedule_digest for each in await firer.settled() if each.nominal_time == time + DAY}


async def first_time(api: Api) -> datetime:
    return (await get(api, f"{DEFAULT}/report")).next_nominal_time.ToDatetime(UTC)


async def digests(api: Api, revision: str) -> Fired:
    """The digests of a revision's schedules, by their aliases."""
    return {alias: (await get(api, f"{revision}/{alias}")).digest for alias in await schedules.listed(api, revision)}


async def test_the_default_that_moves_forward_and_back_decides_what_fires(hub: Hub) -> None:
    """The same go on, changed ones fire as they are now, new ones begin, and missing ones stop; and the other way round."""
    firer, api, _ = hub
    for alias in ("report", "changed", "missing"):
        await create(api, alias)
    await schedules.publish(api)
    await acme.branch(api, blob=NIGHTLY)
    await update(api, f"{DRAFT}/changed", description="Changed")
    await schedules.delete(api, f"{DRAFT}/missing")
    await create(api, "new")
    await acme.commit(api, DRAFT)
    one, two = await digests(api, f"{NIGHTLY}@1"), await digests(api, f"{NIGHTLY}@latest")
    assert (one["report"], set(two)) == (two["report"], {"report", "changed", "new"})
    assert one["changed"] != two["changed"]

    time = await first_time(api) - DAY
    for revision, expected in ((None, one), ("latest", two), ("1", one), ("latest", two)):
        if revision is not None:
            await acme.update_blob(api, NIGHTLY, default_revision=revision)
        assert await day_after(firer, time) == expected
        time += DAY


@pytest.mark.either_database
async def test_a_schedule_that_is_paused_on_a_frozen_revision_fires_again_when_it_is_resumed(hub: Hub) -> None:
    firer, api, _ = hub
    for alias in ("report", "other"):
        await create(api, alias)
    await schedules.publish(api)
    both, time = await digests(api, DEFAULT), await first_time(api) - DAY
    await schedules.pause(api, f"{DEFAULT}/report", "The vendor is down")
    assert await day_after(firer, time) == {"other": both["other"]}
    await schedules.resume(api, f"{DEFAULT}/report")
    await schedules.disable(api, f"{DEFAULT}/other")
    assert await day_after(firer, time + DAY) == {"report": both["report"]}
    await schedules.enable(api, f"{DEFAULT}/other")
    assert await day_after(firer, time + 2 * DAY) == both


@pytest.mark.either_database
async def test_a_schedule_of_a_member_who_was_removed_starts_nothing_until_it_is_reassigned(hub: Hub) -> None:
    firer, api, server = hub
    async with acme.person(server, api, "ann", (NIGHTLY, WRITE)) as ann:
        await acme.member(api, "acme/pipeline", "ann", WRITE)
        made = await create(ann)
        await schedules.publish(api)
        time = await first_time(api) - DAY
        assert await day_after(firer, time) == {"report": made.digest}
        await ask(api, "DeleteMember", parent="acme/pipeline", user="@ann")
        for number in (1, 2):
            assert await day_after(firer, time + number * DAY) == {"report": made.digest}
    first, *refused = await firer.firings()
    assert (first.status, first.actor_id) == (FiringStatus.SUCCESS, made.actor_id)
    assert {(each.status, each.reason, each.execution_id) for each in refused} == {
        (FiringStatus.ACCESS_ERROR, "PERMISSION_DENIED", None)
    }
    key = (await acme.key(api, "acme/pipeline", WRITE)).api_key
    await schedules.reassign(api, f"{DEFAULT}/report", api_key=key.id)
    await day_after(firer, time + 3 * DAY)
    last = (await firer.firings())[-1]
    assert (last.status, last.actor_id, last.nominal_time) == (FiringStatus.SUCCESS, key.id, time + 4 * DAY)


@pytest.mark.parametrize("policy", ["LAST", "ALL"])
@pytest.mark.parametrize(("late", "kind"), [(0, FiringKind.SCHEDULED), (30, FiringKind.CAUGHT_UP)])
@pytest.mark.parametrize("spec", [DAILY, ONCE], ids=["daily", "once"])
async def test_what_was_due_when_the_default_moved_fires_as_the_new_one_has_it(
    hub: Hub, policy: str, late: int, kind: FiringKind, spec: dict[str, Any]
) -> None:
    """By the clock of the calls it is due, and the engine, whose clock is behind, has not come to it yet."""
    firer, api, _ = hub
    for alias in ("report", "missing"):
        await create(api, alias, spec | {"catch_up": f"CATCH_UP_POLICY_{policy}"})
    await schedules.publish(api)
    await acme.branch(api, blob=NIGHTLY)
    changed = await update(api, description="Changed")
    await schedules.delete(api, f"{DRAFT}/missing")
    await acme.commit(api, DRAFT)
    due = utc_now()
    await firer.have_due(due)
    await acme.update_blob(api, NIGHTLY, default_revision="latest")
    await firer.set(due + late * MINUTE)
    (firing,) = await firer.settled()
    assert (firing.schedule_digest, firing.nominal_time, firing.kind) == (changed.digest, due, kind)
    assert firing.status is FiringStatus.SUCCESS
