"""A collection removes no more bytes in a transaction than others can wait for."""

from __future__ import annotations

from pathlib import Path

import flows
from blobhub_server.clock import utc_now
from blobhub_server.workflow.store import event as event_store
from blobhub_server.workflow.store.event import LoggedEvent
from databases import select
from several_servers import together

ROWS = 250
COUNT = "SELECT count(*) FROM events"


async def test_large_lines_of_a_log_are_collected_a_few_in_a_transaction(tmp_path: Path, database_url: str) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        session_id = await api.session(flows.steps(1))
        lines = [
            LoggedEvent(
                session_id=session_id,
                session_sequence=1_000 + number,
                execution_id=None,
                execution_sequence=0,
                type="processor.output",
                create_time=utc_now(),
                event=b"x",
                record="x" * (1 << 20),
            )
            for number in range(30)
        ]
        async with opened.host.db.write() as tx:
            await event_store.append(tx, lines)
        ((before,),) = await select(database_url, COUNT)
        async with opened.host.db.write() as tx:
            assert await event_store.collect(tx, [session_id], ROWS) >= ROWS
        ((after,),) = await select(database_url, COUNT)
        assert before - 10 <= after < before
        removed = ROWS
        while removed >= ROWS:
            async with opened.host.db.write() as tx:
                removed = await event_store.collect(tx, [session_id], ROWS)
        assert await select(database_url, COUNT) == [(0,)]
