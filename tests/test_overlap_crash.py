"""Overlap policies while the server is killed again and again: none is violated, and no time is lost or told of twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import flows
import pytest
from blobhub_server.clock import utc_now
from databases import execute, select
from figures import Figure
from killing import nothing_suspected
from scale import scaled
from schedules import ONCE, TARGET, create, house
from served import Api, ServerProcess, connected
from waiting import until

POLICIES: dict[str, set[str]] = {
    "allow": set(),
    "skip": {"OVERLAP"},
    "queue_one": {"QUEUE_FULL"},
    "stop_running": {"SUPERSEDED"},
}
"""The policies, and why each may leave a time out."""
SCHEDULES = scaled(20, least=4)
ROUNDS = scaled(40, least=8)
KILLS = 3
"""In how many rounds one is a kill."""
NOT_DUE = "next_due_time > {now} AND alias NOT LIKE 'ring-%'"
WAITING = "SELECT count(*) FROM schedules WHERE queued_nominal_time IS NOT NULL OR next_due_time <= {now}"
RUNNING = "SELECT count(*) FROM executions WHERE end_time IS NULL"
FIRINGS = (
    "SELECT schedules.alias, nominal_time, status, reason, executions.create_time, executions.end_time FROM firings"
    " JOIN schedules ON schedules.id = schedule_id LEFT JOIN executions ON executions.id = execution_id"
)


async def prepare(api: Api) -> None:
    """Make schedules of each policy, whose executions take longer than a round."""
    await house(api, flows.delay(0.5))
    for policy in POLICIES:
        spec = ONCE | {"invocation_target": TARGET | {"session": ""}, "overlap": f"OVERLAP_POLICY_{policy.upper()}"}
        for number in range(SCHEDULES):
            await create(api, f"{policy}-{number}", spec)


async def make_due(api: Api, url: str, round_: int) -> set[tuple[str, int]]:
    """Have those schedules be due now that are not, and ring the engine; the times, by the aliases."""
    now = round(utc_now().timestamp() * 1_000_000)
    not_due = NOT_DUE.format(now=now)
    found = await select(url, f"SELECT alias FROM schedules WHERE {not_due}")
    await execute(url, f"UPDATE schedules SET next_nominal_time = {now}, next_due_time = {now} WHERE {not_due}")
    await create(api, f"ring-{round_}", ONCE)
    return {(alias, now) for (alias,) in found}


async def idle(url: str) -> None:
    """Wait until nothing is due, waits or runs; what is next to end is waited for a minute."""
    now = round(utc_now().timestamp() * 1_000_000)

    async def left() -> int:
        waiting, running = await select(url, f"{WAITING.format(now=now)} UNION ALL {RUNNING}")
        return waiting[0] + running[0]

    async def is_less(than: int) -> bool:
        return await left() < than

    while found := await left():
        await until(lambda found=found: is_less(found))


@pytest.mark.timeout(1800)
async def test_no_policy_is_violated_and_no_time_is_lost_whenever_the_server_is_killed(
    tmp_path: Path, database_url: str, figure: Figure
) -> None:
    dice = random.Random(20261127)
    server = ServerProcess(tmp_path / "data", database_url, lease_seconds=1)
    await server.start()
    key, times = server.admin_key, set[tuple[str, int]]()
    try:
        async with connected(server.address, key) as api:
            await prepare(api)
        for round_ in range(ROUNDS):
            async with connected(server.address, key) as api:
                times |= await make_due(api, database_url, round_)
            await asyncio.sleep(dice.uniform(0, 0.3))
            if round_ % KILLS == 0:
                await until(lambda: nothing_suspected(database_url))
                server.kill()
                await server.start()
        await idle(database_url)
    finally:
        server.kill()
    found = await select(database_url, FIRINGS)
    told = [(alias, time) for alias, time, *_ in found]
    assert len(told) == len(set(told))
    assert times <= set(told)
    counts = Counter((row[0].rsplit("-", 1)[0], row[3] or row[2]) for row in found)
    figure(", ".join(f"{policy} {what} {count}" for (policy, what), count in sorted(counts.items())))
    for policy, reasons in POLICIES.items():
        own = [row for row in found if row[0].rsplit("-", 1)[0] == policy]
        assert {reason for _, _, status, reason, *_ in own if status == "skipped"} <= reasons
        assert {status for _, _, status, *_ in own} <= {"success", "skipped"}
        for number in range(SCHEDULES if policy != "allow" else 0):
            spans = sorted(row[4:] for row in own if row[0] == f"{policy}-{number}" and row[2] == "success")
            assert all(end <= begin for (_, end), (begin, _) in pairwise(spans)), "two have run at once"
