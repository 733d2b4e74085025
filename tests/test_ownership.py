"""Who runs what: leases of servers, and executions that change hands."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import joining
import pytest
import sqlalchemy as sa
from blobhub_server import app
from blobhub_server.clock import utc_now
from blobhub_server.db.postgresql import POOL
from blobhub_server.workflow.store.server import living, servers
from databases import FreshPostgres
from joining import Opened
from served import served
from waiting import until


async def lease_of(opened: Opened) -> int:
    async with opened.host.db.reserved() as tx:
        lease_until = sa.type_coerce(servers.c.lease_until, sa.BigInteger)
        return (await tx.execute(sa.select(lease_until))).scalar_one()


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_server_whose_clock_is_wrong_is_alive_all_the_same(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    monkeypatch.setattr(app, "utc_now", lambda: utc_now() + timedelta(hours=hours))
    with joining.opening() as found:
        async with served(tmp_path / "data", database_url):
            (opened,) = found
            async with opened.host.db.read() as tx:
                assert len((await tx.execute(living())).all()) == 1
            lease = await lease_of(opened)
            assert lease / 1e6 - utc_now().timestamp() < 60, "the lease would outlive the server by an hour"


async def test_a_lease_is_renewed_while_the_pool_is_full_of_slow_statements(
    tmp_path: Path, fresh_postgres: FreshPostgres
) -> None:
    async def sleep(opened: Opened) -> None:
        async with opened.host.db.read() as tx:
            await tx.execute(sa.text("SELECT pg_sleep(60)"))

    with joining.opening() as found:
        async with served(tmp_path / "data", await fresh_postgres(), lease_seconds=1):
            (opened,) = found
            slow = [asyncio.create_task(sleep(opened)) for _ in range(2 * POOL + 1)]
            for _ in range(3):
                before = await lease_of(opened)
                await until(lambda before=before: _grown(opened, before))
            assert not any(task.done() for task in slow)
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)


async def _grown(opened: Opened, before: int) -> bool:
    return await lease_of(opened) > before
