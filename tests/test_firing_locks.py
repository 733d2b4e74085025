"""The engine of schedules and the journal lock rows in one order, so they wait for each other and never in a circle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import acme
import flows
import pytest
import sqlalchemy as sa
from blobhub_server.clock import utc_now
from blobhub_server.db.engine import Transaction
from blobhub_server.scheduler.rules.firing import FiringStatus
from blobhub_server.scheduler.store import firing_log as log_store
from blobhub_server.workflow.store import log_size as log_size_store
from blobhub_server.workflow.store import session as session_store
from databases import FreshPostgres, select
from firing import Firer, engines
from schedules import DAILY, NIGHTLY, create, house
from served import Api, connected, served
from waiting import until

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest.fixture
async def hub(tmp_path: Path, fresh_postgres: FreshPostgres) -> AsyncIterator[tuple[Firer, Api, str]]:
    """A server with a scheduler without schedules, and a workflow with a large result; and its database."""
    url = await fresh_postgres()
    with engines() as found:
        async with served(tmp_path / "data", url) as server, connected(server.address, server.admin_key) as api:
            await house(api, flows.code("set_data_output('result', 'x' * 300000)"))
            yield found[0], api, url


async def wait_for_nobody(tx: Transaction) -> None:
    """Have a transaction fail when it would have to wait for a lock, in place of the one that it waits for."""
    await tx.execute(sa.text("SET LOCAL lock_timeout = '400ms'"))


async def somebody_waits(url: str) -> bool:
    return (await select(url, WAITING))[0][0] > 0


async def test_sessions_are_locked_by_id_whatever_the_order_of_the_schedules(hub: tuple[Firer, Api, str]) -> None:
    firer, api, url = hub
    first, second = [(await acme.session(api, "acme/pipeline@draft", alias=alias)).id for alias in ("b", "a")]
    assert first < second
    for session in ("a", "b"):
        await create(api, session, DAILY | {"invocation_target": DAILY["invocation_target"] | {"session": session}})
    async with firer.host.db.write() as tx:
        await wait_for_nobody(tx)
        await session_store.lock(tx, [first])
        await firer.have_due(utc_now())
        await until(lambda: somebody_waits(url))
        await session_store.lock(tx, [second])
    assert [each.status for each in await firer.fired(2)] == [FiringStatus.SUCCESS] * 2


async def test_an_end_locks_how_large_logs_are_before_the_log_of_firings(hub: tuple[Firer, Api, str]) -> None:
    firer, api, url = hub
    await create(api)
    await firer.have_due(utc_now())
    await firer.fired(1)
    await until(lambda: have_ended(firer))
    blob = await acme.get_blob(api, NIGHTLY)
    async with firer.host.db.write() as tx:
        await wait_for_nobody(tx)
        await log_size_store.add(tx, {blob.organization_id: 1})
        await firer.have_due(utc_now())
        await firer.fired(2)
        await until(lambda: somebody_waits(url))
        await log_store.take_numbers(tx, {blob.id: 1})
    await until(lambda: have_ended(firer))


async def have_ended(firer: Firer) -> bool:
    return all(each.end_time is not None for each in await firer.firings())
