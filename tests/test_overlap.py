"""Times that come while an execution of the same schedule runs: no policy is ever violated, and what is left out is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from pathlib import Path

import acme
import flows
import pytest
from blobhub_server.scheduler.rules.firing import Firing, FiringStatus
from calling import ask
from databases import select
from firing import MINUTE, Firer, SetClock, engines, utc
from scale import scaled
from schedules import DAILY, DEFAULT, create, delete, house, reassign
from served import connected, served
from waiting import until

pytestmark = pytest.mark.either_database

LONG_AGO, START = utc("2001-01-01 00:00"), utc("2127-05-03 00:00")
MINUTELY = DAILY | {"cron_expression": "* * * * *", "timezone": "UTC"}
MINUTES = scaled(60, least=12)
SCHEDULES = scaled(20, least=3)
SPANS = "SELECT cause_id, create_time, end_time FROM executions WHERE cause_kind = 'firing'"


async def idle(firer: Firer) -> bool:
    """Whether nothing runs or waits."""
    waiting = [each for each in await firer.schedules() if each.queued_nominal_time is not None]
    return not waiting and all(each.execution_id is None or each.end_time for each in await firer.firings())


async def load(tmp_path: Path, url: str, policy: str) -> tuple[list[Firing], dict[str, tuple[int, int]]]:
    """Have some schedules fire each minute, faster than their executions end; all firings, and when executions ran."""
    clock = SetClock(LONG_AGO)
    with engines(clock) as found:
        async with served(tmp_path / "data", url) as server, connected(server.address, server.admin_key) as api:
            (firer,) = found
            await house(api, flows.delay(0.5))
            spec = MINUTELY | {"overlap": f"OVERLAP_POLICY_{policy}"}
            spec["invocation_target"] = spec["invocation_target"] | {"session": ""}
            for number in range(SCHEDULES):
                await create(api, f"each-{number}", spec)
            await firer.arm(START)
            for minute in range(1, MINUTES + 1):
                await firer.set(START + minute * MINUTE)
                await firer.settled()
                await asyncio.sleep(0.1)
            await until(lambda: idle(firer))
            ran = {cause: (begin, end) for cause, begin, end in await select(url, SPANS)}
            return await firer.firings(), ran


@pytest.mark.both_databases
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("policy", "reasons"),
    [("ALLOW", set()), ("SKIP", {"OVERLAP"}), ("QUEUE_ONE", {"QUEUE_FULL"}), ("STOP_RUNNING", {"SUPERSEDED"})],
)
async def test_a_policy_is_never_violated_and_every_time_is_told_of_once(
    tmp_path: Path, database_url: str, policy: str, reasons: set[str]
) -> None:
    firings, ran = await load(tmp_path, database_url, policy)
    minutes = [START + minute * MINUTE for minute in range(1, MINUTES + 1)]
    for schedule_id in {firing.schedule_id for firing in firings}:
        own = [firing for firing in firings if firing.schedule_id == schedule_id]
        assert sorted(firing.nominal_time for firing in own) == minutes
        if policy != "ALLOW":
            spans = sorted(ran[firing.id] for firing in own if firing.execution_id is not None)
            assert all(end <= begin for (_, end), (begin, _) in pairwise(spans)), "two have run at once"
    skipped = {firing.reason for firing in firings if firing.status is FiringStatus.SKIPPED}
    assert skipped <= reasons
    fired = Counter(firing.execution_state for firing in firings if firing.status is FiringStatus.SUCCESS)
    assert fired.keys() <= ({"completed", "stopped"} if policy == "STOP_RUNNING" else {"completed"})
    if policy == "ALLOW":
        assert fired == {"completed": MINUTES * SCHEDULES}


@pytest.fixture
async def one(tmp_path: Path, database_url: str, request: pytest.FixtureRequest):
    """A schedule of a policy, of which something runs that does not end by itself."""
    clock = SetClock(LONG_AGO)
    with engines(clock) as found:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            await house(api, flows.delay(3600))
            spec = MINUTELY | {"overlap": f"OVERLAP_POLICY_{request.param}"}
            await create(api, spec=spec)
            await found[0].arm(START)
            await found[0].set(START + MINUTE)
            await found[0].fired(1)
            yield found[0], api


async def at(firer: Firer, minute: int) -> list[tuple[int, str]]:
    """The firings, each with its minute and what became of it, after a minute has come."""
    await firer.set(START + minute * MINUTE)
    return shown(await firer.settled())


def shown(firings: list[Firing]) -> list[tuple[int, str]]:
    return [((each.nominal_time - START) // MINUTE, each.reason or each.execution_state or "runs") for each in firings]


@pytest.mark.parametrize("one", ["SKIP"], indirect=True)
async def test_skip_leaves_times_out_until_the_execution_has_ended(one) -> None:
    firer, api = one
    assert await at(firer, 2) == [(1, "runs"), (2, "OVERLAP")]
    (first, _) = await firer.firings()
    await ask(api, "StopExecution", execution=first.execution_id)
    await until(lambda: ended(firer, 1))
    assert await at(firer, 3) == [(1, "stopped"), (2, "OVERLAP"), (3, "runs")]


async def ended(firer: Firer, count: int) -> bool:
    return len([firing for firing in await firer.firings() if firing.end_time is not None]) == count


@pytest.mark.parametrize("one", ["QUEUE_ONE"], indirect=True)
async def test_queue_one_keeps_the_first_time_that_comes_until_the_execution_has_ended(one) -> None:
    firer, api = one
    assert await at(firer, 2) == [(1, "runs")]
    assert await at(firer, 3) == [(1, "runs"), (3, "QUEUE_FULL")]
    await ask(api, "StopExecution", execution=(await firer.firings())[0].execution_id)
    await firer.fired(3)
    assert shown(await firer.firings()) == [(1, "stopped"), (3, "QUEUE_FULL"), (2, "runs")]


@pytest.mark.both_databases
@pytest.mark.parametrize("one", ["STOP_RUNNING"], indirect=True)
async def test_stop_running_stops_it_and_waits_for_its_end(one) -> None:
    firer, _ = one
    await at(firer, 2)
    await firer.fired(2)
    assert shown(await firer.firings()) == [(1, "stopped"), (2, "runs")]


@pytest.mark.parametrize("one", ["QUEUE_ONE"], indirect=True)
async def test_a_time_that_waits_fires_once_when_it_comes_again_after_the_clock_was_set_back(one) -> None:
    firer, api = one
    assert await at(firer, 2) == [(1, "runs")]
    await firer.set(START + MINUTE)
    await firer.arm(START + MINUTE)
    assert await at(firer, 2) == [(1, "runs")]
    await ask(api, "StopExecution", execution=(await firer.firings())[0].execution_id)
    assert shown(await firer.fired(2)) == [(1, "stopped"), (2, "runs")]


@pytest.mark.parametrize("one", ["QUEUE_ONE"], indirect=True)
async def test_an_execution_that_was_deleted_holds_nothing_up(one) -> None:
    """Its end is never heard, so the engine has to look."""
    firer, api = one
    await at(firer, 2)
    await acme.delete_blob(api, "acme/pipeline", cascade=True)
    firer.engine._look_at_queued([(await firer.schedule()).id])
    (_, second) = await firer.fired(2)
    assert (second.status, second.reason) == (FiringStatus.ACCESS_ERROR, "PERMISSION_DENIED")


@pytest.mark.parametrize("one", ["QUEUE_ONE"], indirect=True)
async def test_what_waits_is_left_out_when_the_schedule_was_paused_meanwhile(one) -> None:
    firer, api = one
    await at(firer, 2)
    await ask(api, "PauseSchedule", schedule=f"{DEFAULT}/report")
    await ask(api, "StopExecution", execution=(await firer.firings())[0].execution_id)
    await firer.fired(2)
    assert shown(await firer.firings()) == [(1, "stopped"), (2, "NOT_ARMED")]


@pytest.mark.parametrize("one", ["QUEUE_ONE"], indirect=True)
async def test_what_waits_is_left_out_when_the_schedule_was_deleted_and_does_not_fire_when_there_is_another(one) -> None:
    firer, api = one
    await at(firer, 2)
    await delete(api)
    await ask(api, "StopExecution", execution=(await firer.firings())[0].execution_id)
    await firer.fired(2)
    assert shown(await firer.firings()) == [(1, "stopped"), (2, "NOT_ARMED")]
    await firer.set(LONG_AGO)
    await create(api, spec=MINUTELY)
    await firer.arm(START + 2 * MINUTE)
    assert await at(firer, 3) == [(1, "stopped"), (2, "NOT_ARMED"), (3, "runs")]


@pytest.mark.parametrize("one", ["QUEUE_ONE"], indirect=True)
async def test_what_waits_is_refused_when_whoever_it_acts_for_was_removed_meanwhile(one) -> None:
    firer, api = one
    (first,) = await firer.firings()
    key = (await acme.key(api, "acme/pipeline", acme.WRITE)).api_key
    await reassign(api, f"{DEFAULT}/{first.schedule_alias}", api_key=key.id)
    assert await at(firer, 2) == [(1, "runs")]
    await acme.revoke_key(api, key.id)
    await ask(api, "StopExecution", execution=first.execution_id)
    _, refused = await firer.fired(2)
    assert (refused.status, refused.reason, refused.actor_id) == (FiringStatus.ACCESS_ERROR, "PERMISSION_DENIED", key.id)
    assert (await firer.schedule()).queued_nominal_time is None
