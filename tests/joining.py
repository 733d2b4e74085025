"""Starts of executions as a part of somebody's transaction, which has a row of its own to write: a firing, say.

As a command it serves, and fires so many times in a session: `python joining.py <session id> <how many>`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import sqlalchemy as sa
import uvloop
from blobhub_server.app import running
from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.config import Settings
from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import Prepared, upsert
from blobhub_server.workflow import blob_type
from blobhub_server.workflow.definitions.finder import Definitions
from blobhub_server.workflow.rules.execution import Cause, CauseKind, Execution
from blobhub_server.workflow.runtime.contract import Start
from blobhub_server.workflow.runtime.embedded.runtime import EmbeddedRuntime
from blobhub_server.workflow.store import session as session_store

firings = sa.Table("firings_of_a_test", sa.MetaData(), sa.Column("number", sa.Integer, primary_key=True))
RECORD = Prepared(upsert(firings, keys=[firings.c.number], changed=()))


@dataclass
class Opened:
    """What a server's workflows were opened with, and how executions are started there."""

    host: Host
    definitions: Definitions
    runtime: EmbeddedRuntime

    async def start(self, session_id: str, number: int, **fields: object) -> Start:
        """A start for a firing, in a session."""
        async with self.host.db.read() as tx:
            session = await session_store.get(tx, session_id)
        assert session is not None
        cause = Cause(CauseKind.FIRING, str(number))
        start = Start(session=session, definition="workflow", input_data={}, actor_id="", cause=cause)
        return replace(start, **fields)

    async def fire(self, start: Start, number: int) -> Execution:
        """Record a firing and start its execution in one transaction; done before, it changes nothing."""

        prepared = await self.runtime.prepare(start)

        async def work(tx: Transaction) -> Execution:
            if number % 2:
                await record(tx, number)
                await asyncio.sleep(random.random() * 0.01)
                return await self.runtime.join(tx, prepared)
            execution = await self.runtime.join(tx, prepared)
            await asyncio.sleep(random.random() * 0.01)
            await record(tx, number)
            return execution

        return await self.host.db.transact(work)


async def record(tx: Transaction, number: int) -> None:
    """Record a firing, unless it has been."""
    await tx.run(RECORD, number=number)


@contextmanager
def opening() -> Iterator[list[Opened]]:
    """Collects what the servers that are started meanwhile are opened with, in their order."""
    found: list[Opened] = []

    class Seen(EmbeddedRuntime):
        def __init__(self, host: Host, definitions: Definitions, *others: object) -> None:
            super().__init__(host, definitions, *others)
            found.append(Opened(host=host, definitions=definitions, runtime=self))

    blob_type.EmbeddedRuntime = Seen
    try:
        yield found
    finally:
        blob_type.EmbeddedRuntime = EmbeddedRuntime


async def make_table(opened: Opened) -> None:
    """Make the table of firings, unless it is there."""
    async with opened.host.db.write() as tx:
        await tx.execute(sa.schema.CreateTable(firings, if_not_exists=True))


async def main(session_id: str, count: int) -> None:
    """Serve, and fire; whoever starts this again fires everything again."""
    with opening() as found:
        async with running(Settings(), BlobTypes.load()) as server:
            print(f"serves on {server.address}", flush=True)
            (opened,) = found
            await make_table(opened)
            for number in range(count):
                start = await opened.start(session_id, number)
                await opened.fire(start, number)
            await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
