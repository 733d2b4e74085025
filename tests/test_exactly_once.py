"""Schedules that are due in the same second: each fires once and starts one execution, whatever happens to the servers."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import acme
import flows
import pytest
from blobhub_server.clock import utc_now
from blobhub_server.scheduler.store.schedule import schedules as table
from databases import FreshPostgres, execute, select
from figures import Figure
from firing import engines
from ground import away
from killing import nothing_suspected
from scale import scaled
from schedules import ONCE, SCHEDULER, TARGET, create, house
from served import Api, ServerProcess, connected, served
from waiting import until

BLOBS = 4
PER_BLOB = scaled(50, least=6) ** 2
SCHEDULES = BLOBS * PER_BLOB
KILLS = 3
FIRINGS = "SELECT count(*) FROM firings"
UNENDED = "SELECT count(*) FROM firings WHERE end_time IS NULL"
WORK = flows.delay(0.05)


async def prepare(api: Api, url: str) -> None:
    """Have so many schedules be due at once, in a moment; the engine is rung by the last of what this does."""
    await house(api, WORK)
    for number in range(BLOBS):
        await acme.blob(api, f"acme/blob-{number}", SCHEDULER)
        # Those of one blob have a new session for each firing.
        target = TARGET | {"session": f"session-{number}" if number else ""}
        spec = ONCE | {"timezone": "UTC", "invocation_target": target}
        await create(api, revision=f"acme/blob-{number}@draft", spec=spec)
    row = "row_number() OVER (ORDER BY schedules.id, n)"
    copied = {"id": f"'00000000-0000-7000-8000-' || substr(CAST(1000000000000 + {row} AS TEXT), 2)", "alias": "'copy-' || n"}
    names = [column.name for column in table.columns]
    values = ", ".join(copied.get(name, name) for name in names)
    numbers = f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {PER_BLOB - 1})"
    await execute(url, f"INSERT INTO schedules ({', '.join(names)}) {numbers} SELECT {values} FROM schedules, numbers")
    due = utc_now() + timedelta(seconds=1)
    told = f"replace(document, '{ONCE['invocation_time']}', '{due.replace(tzinfo=None).isoformat()}')"
    await execute(url, f"UPDATE schedule_versions SET document = {told}")
    instant = round(due.timestamp() * 1_000_000)
    await execute(url, f"UPDATE schedules SET next_nominal_time = {instant}, next_due_time = {instant}")
    await create(api, spec=ONCE)


async def number_of(url: str, query: str) -> int:
    return (await select(url, query))[0][0]


async def check(url: str) -> str:
    """Each schedule has fired once, has started one execution, and knows how that has ended; what was tried, in words.

    Nothing is asked of how long it takes, but that it goes on: a slow machine fires some of them late, as caught up.
    """
    await fired(url)
    while unended := await number_of(url, UNENDED):
        await until(lambda unended=unended: is_less(url, UNENDED, unended))
    found = await select(url, "SELECT id, blob_id, schedule_id, status, kind, sequence, end_sequence FROM firings")
    assert len(found) == len({schedule_id for _, _, schedule_id, *_ in found}) == SCHEDULES
    assert {status for _, _, _, status, *_ in found} == {"success"}
    causes = await select(url, "SELECT cause_id, state FROM executions WHERE cause_kind = 'firing'")
    assert sorted(cause for cause, _ in causes) == sorted(firing_id for firing_id, *_ in found)
    assert {state for _, state in causes} == {"completed"}
    numbers = sorted(
        (blob_id, number) for _, blob_id, *_, sequence, end_sequence in found for number in (sequence, end_sequence)
    )
    blob_ids = sorted({blob_id for blob_id, _ in numbers})
    assert numbers == [(blob_id, number) for blob_id in blob_ids for number in range(1, 2 * PER_BLOB + 1)]
    kinds = Counter(kind for _, _, _, _, kind, *_ in found)
    return f"{SCHEDULES} schedules due at once: {dict(kinds)}"


async def fired(url: str, count: int = SCHEDULES) -> None:
    """Wait for so many firings; the next one is waited for a minute, however many there are."""
    while (found := await number_of(url, FIRINGS)) < count:
        await until(lambda found=found: has_more(url, found))


async def has_more(url: str, count: int) -> bool:
    return await number_of(url, FIRINGS) > count


async def is_less(url: str, query: str, count: int) -> bool:
    return await number_of(url, query) < count


@pytest.mark.timeout(3600)
async def test_each_fires_once(tmp_path: Path, database_url: str, figure: Figure) -> None:
    async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
        await prepare(api, database_url)
        figure(await check(database_url))


@pytest.mark.timeout(3600)
async def test_each_fires_once_whenever_the_server_is_killed(tmp_path: Path, database_url: str, figure: Figure) -> None:
    dice = random.Random(20261127)
    server = ServerProcess(tmp_path / "data", database_url, lease_seconds=1)
    await server.start()
    try:
        async with connected(server.address, server.admin_key) as api:
            await prepare(api, database_url)
        for kill in range(KILLS):
            await fired(database_url, SCHEDULES * kill // (KILLS + 1) + 1)
            await asyncio.sleep(dice.uniform(0, 0.1))
            await until(lambda: nothing_suspected(database_url))
            server.kill()
            await server.start()
        figure(f"{await check(database_url)}, {KILLS} kills")
    finally:
        server.kill()


@pytest.mark.timeout(3600)
async def test_each_fires_once_on_two_servers_of_which_one_is_frozen_past_its_lease(
    tmp_path: Path, fresh_postgres: FreshPostgres, figure: Figure
) -> None:
    url = await fresh_postgres()
    async with AsyncExitStack() as stack:
        servers = [ServerProcess(tmp_path / "data", url, lease_seconds=2) for _ in range(2)]
        for server in servers:
            await stack.enter_async_context(server.running())
        async with connected(servers[0].address, servers[0].admin_key) as api:
            await prepare(api, url)
        await fired(url, SCHEDULES // 10)
        os.kill(servers[0].pid, signal.SIGSTOP)
        try:
            await fired(url)
        finally:
            os.kill(servers[0].pid, signal.SIGCONT)
        figure(f"{await check(url)}, on two servers, one frozen")


@pytest.mark.timeout(3600)
async def test_each_fires_once_when_the_database_is_away_meanwhile(
    tmp_path: Path, database_url: str, figure: Figure
) -> None:
    seconds = scaled(5, least=1)
    with engines() as found:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            await prepare(api, database_url)
            await fired(database_url, 1)
            async with away(found[0].host.db):
                await asyncio.sleep(seconds)
            figure(f"{await check(database_url)}, the database away for {seconds} s")
