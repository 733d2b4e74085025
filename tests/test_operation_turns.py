"""Which operation is run next: organizations go round, and what waits costs nothing until its turn comes."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import pytest
from blobhub_server.platform.blobs.operations import runner
from blobhub_server.platform.store import operation as operation_store
from blobhub_server.platform.store import operation_claim as store
from blobhub_server.platform.store.operation import OPERATION, operations
from databases import execute
from figures import Figure
from joining import Opened
from operations import Gate, begin, blob, cancel, gate
from plans import asked, database
from scale import scaled
from served import connected, served
from several_servers import together
from stranger_notes.capitals import CAPITALIZE

__all__ = ["gate"]

WAITING = scaled(50_000, least=1_000)
PARTY = ("", "operations")


async def test_more_organizations_than_are_looked_at_at_once_go_round(
    gate: Gate, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "ORGANIZATIONS", 2)
    aliases = [f"organization-{number}" for number in range(5)]
    async with (
        served(tmp_path / "data", database_url, operations_at_once=1) as server,
        connected(server.address, server.admin_key) as api,
    ):
        for alias in aliases:
            await blob(api, f"{alias}/notes")
        begun = [[(await begin(api, f"{alias}/notes")).id for _ in range(3)] for alias in aliases]
        await cancel(api, begun[2].pop(1))
        gate.is_open.set()
        expected = [id_ for turn in zip_longest(*begun) for id_ in turn if id_]
        assert [await gate.next() for _ in expected] == expected


async def test_the_next_operation_is_found_as_fast_however_many_wait(
    gate: Gate, tmp_path: Path, database_url: str, figure: Figure
) -> None:
    """One runs, and the others wait, in two organizations."""
    async with together(tmp_path, database_url, count=1, operations_at_once=1) as ((opened, api),):
        await blob(api)
        await blob(api, "other/notes")
        await begin(api)
        await gate.next()
        waiting = [(await begin(api)).id, (await begin(api, "other/notes")).id]
        few, first = await effort(opened, database_url), await look(opened)
        assert [(item.running, item.fresh_id, item.suspect_id) for item in first] == [
            (1, waiting[0], None),
            (0, waiting[1], None),
        ]
        await multiply(opened, waiting)
        await execute(database_url, "ANALYZE")  # as PostgreSQL does by itself, a minute later
        many = await effort(opened, database_url)
        assert await look(opened) == first
        figure(f"the next of {WAITING} operations is found with an effort of {many}; of two with {few}")
        assert many < 2 * few


async def look(opened: Opened) -> list[store.Waiting]:
    """What waits for another server than the one that runs."""
    async with opened.host.db.scan(PARTY, patient=True) as tx:
        await store.seconds_to_takeover(tx, opened.host.server_id)
        return await store.list_waiting(tx, opened.host.server_id, [CAPITALIZE], after="", max_organizations=64)


async def multiply(opened: Opened, operation_ids: list[str]) -> None:
    """Store copies of some operations, until so many wait."""
    async with opened.host.db.write() as tx:
        rows = [OPERATION.row(each) for each in await operation_store.find_some(tx, operation_ids)]
        free = {"server_id": None, "lease_until": None}
        for at in range(0, WAITING, 1_000):
            copies = [rows[n % len(rows)] | free | {"id": opened.host.ids()} for n in range(at, at + 1_000)]
            await tx.execute(operations.insert(), copies)


async def effort(opened: Opened, url: str) -> int:
    """What the database does to find what waits, and when the next lease of another server runs out."""
    with asked("SELECT", "WITH") as statements:
        await look(opened)
    about = {each.sql: each for each in statements if "organizations_that_wait" in each.sql or "lease_until" in each.sql}
    assert len(about) >= 2
    async with database(url) as beside:
        return sum([(await beside.work(each)).effort for each in about.values()])
