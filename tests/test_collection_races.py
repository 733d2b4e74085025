"""Collections beside others who change the same rows, beside other servers, and beside what cannot be collected."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import acme
import flows
import pytest
import sqlalchemy as sa
from blobhub_server.blobtypes.contract import DELETIONS
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.db.opening import open_database
from blobhub_server.platform.store import alias as alias_store
from blobhub_server.scheduler import blob_type as scheduler
from blobhub_server.scheduler.store import due as due_store
from blobhub_server.workflow.store import session as session_store
from calling import ask
from databases import FreshPostgres, collected, execute, select
from multiplied import multiply_blob
from populating import everything, held
from scale import scaled
from schedules import create, house, publish, put_firing
from served import Served, connected, served
from several_servers import started, together
from waiting import until, within_deadline

BLOBS = scaled(3_000, least=120)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    db = await open_database(url)
    try:
        yield db
    finally:
        await db.close()


async def _waits(url: str) -> bool:
    return await select(url, "SELECT count(*) FROM pg_locks WHERE NOT granted") != [(0,)]


async def test_a_collection_leaves_the_former_alias_that_somebody_else_gives_up_meanwhile(
    fresh_postgres: FreshPostgres,
) -> None:
    url = await fresh_postgres()
    deleted, other = str(uuid.uuid4()), str(uuid.uuid4())
    async with opened(url) as db:
        async with db.write() as tx:
            await alias_store.give_up(tx, "", "acme", deleted)

        async def collect(tx: Transaction) -> int:
            return await alias_store.collect(tx, [deleted], 100)

        async with db.write() as tx:
            await alias_store.give_up(tx, "", "acme", other)
            collecting = asyncio.create_task(db.transact(collect))
            await until(lambda: _waits(url))
        assert await within_deadline(collecting) == 0
    assert await select(url, "SELECT resource_id FROM former_aliases") == [(other,)]


async def test_a_collection_waits_for_the_firing_that_is_stored_meanwhile(
    fresh_postgres: FreshPostgres, tmp_path: Path
) -> None:
    url = await fresh_postgres()
    async with served(tmp_path, url) as server, connected(server.address, server.admin_key) as api:
        await house(api)
        made = await create(api)
        firing_id = await put_firing(server, made)
        (columns,) = await select(
            url,
            "SELECT string_agg(column_name, ', ') FROM information_schema.columns "
            "WHERE table_name = 'firings' AND column_name NOT IN ('id', 'kind', 'sequence')",
        )
    async with opened(url) as db:

        async def collect(tx: Transaction) -> int:
            return await scheduler._collect(tx, [made.blob_id], 100)

        async with db.write() as tx:
            assert len(await due_store.lock(tx, [made.id])) == 1
            collecting = asyncio.create_task(db.transact(collect))
            await until(lambda: _waits(url))
            copied = f"SELECT '{uuid.uuid4()}', 'triggered', 2, {columns[0]} FROM firings WHERE id = '{firing_id}'"
            await tx.execute(sa.text(f"INSERT INTO firings (id, kind, sequence, {columns[0]}) {copied}"))
        await within_deadline(collecting)
    for table in ("firings", "firing_logs", "schedules", "schedule_versions"):
        assert await select(url, f"SELECT count(*) FROM {table}") == [(0,)], table


async def test_two_servers_collect_one_organization_and_nothing_else(fresh_postgres: FreshPostgres, tmp_path: Path) -> None:
    url = await fresh_postgres()
    async with together(tmp_path, url, count=2) as ((_, api), (_, other)):
        await acme.user(api, "ann")
        await acme.organization(api, "other")
        await acme.blob(api, "other/blob")
        await held(api, "other/blob", "blob.revisions")
        before = await everything(url)
        await ask(api, "RunExecution", session=await api.session(flows.steps(2)), spec={"definition": "workflow"})
        await held(api, "acme/pipeline", "blob.revisions")
        await multiply_blob(url, (await acme.get_blob(api)).id, BLOBS)
        await acme.delete_organization(other, cascade=True)
        await collected(url)
        assert await everything(url) == before


async def test_what_cannot_be_collected_keeps_nothing_else_from_it(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    url, lock_some = server.settings.url, session_store.lock_some
    async with connected(server.address, server.admin_key) as api:
        await acme.organization(api)
        ids = sorted([(await acme.blob(api, f"acme/{alias}")).id for alias in ("one", "two", "three", "four", "five")])

        async def fail(tx: Transaction, blob_ids: Sequence[str], limit: int) -> list[str]:
            if {ids[1], ids[3]} & {*blob_ids}:
                raise ZeroDivisionError
            return await lock_some(tx, blob_ids, limit)

        with monkeypatch.context() as patch:
            patch.setattr(session_store, "lock_some", fail)
            await acme.delete_organization(api, cascade=True)
            left = "SELECT id FROM deletions ORDER BY id"
            await until(lambda: _are(url, left, [(ids[1],), (ids[3],)]))


async def _are(url: str, query: str, rows: list[tuple[str, ...]]) -> bool:
    return await select(url, query) == rows


async def test_the_step_of_an_execution_that_is_collected_already_is_ended(tmp_path: Path, database_url: str) -> None:
    """Whoever looks what was deleted may come after the collector."""
    async with together(tmp_path, database_url, count=1, lease_seconds=600, code_seconds=600) as ((opened, api),):
        await started(api, await api.session(flows.code("while True:\n    pass")))
        await until(lambda: [task for task in asyncio.all_tasks() if task.get_name() == "step script"])
        (step,) = [task for task in asyncio.all_tasks() if task.get_name() == "step script"]
        await execute(database_url, "DELETE FROM executions")
        opened.host.bell.ring(DELETIONS)
        await within_deadline(asyncio.wait([step]))
        assert step.cancelled()


async def test_zone_data_is_brought_up_to_date_beside_schedules_that_are_collected_in_part(
    tmp_path: Path, database_url: str
) -> None:
    async with served(tmp_path, database_url) as server, connected(server.address, server.admin_key) as api:
        await house(api)
        await create(api)
        await publish(api)
        key = server.admin_key
    await execute(database_url, "DELETE FROM schedule_versions")
    await execute(database_url, "DELETE FROM blobs WHERE id IN (SELECT blob_id FROM schedules)")
    await execute(database_url, "UPDATE schedules SET tzdata = '2020a'")
    async with served(tmp_path, database_url), connected(server.address, key):
        await until(lambda: _are(database_url, "SELECT count(*) FROM schedules WHERE tzdata = '2020a'", [(0,)]))
