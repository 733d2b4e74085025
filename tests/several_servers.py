"""Several servers on one database, and executions that are handed from one to another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import joining
import sqlalchemy as sa
from blobhub.v1 import execution_pb2 as pb
from blobhub_server.workflow.log.log import EventLog
from blobhub_server.workflow.log.session_events import SessionEvents
from blobhub_server.workflow.rules.execution import ACTIVE
from blobhub_server.workflow.runtime.inbox import Inbox
from blobhub_server.workflow.store import server as server_store
from blobhub_server.workflow.store.execution import executions
from blobhub_server.workflow.store.server import servers
from calling import ask
from joining import Opened
from served import Api, connected, served

FOREVER = timedelta(days=1)


@asynccontextmanager
async def together(
    tmp_path: Path, url: str, count: int = 2, key: str = "", **settings: object
) -> AsyncIterator[list[tuple[Opened, Api]]]:
    """So many servers on a PostgreSQL, and one on a SQLite file, which has no more; each with a client.

    `key` is the administrator's, where this is not the first start.
    """
    async with AsyncExitStack() as stack:
        found = stack.enter_context(joining.opening())
        clients = []
        for _ in range(1 if url.startswith("sqlite") else count):
            server = await stack.enter_async_context(served(tmp_path / "data", url, **settings))
            key = key or server.admin_key
            clients.append(await stack.enter_async_context(connected(server.address, key)))
        yield list(zip(found, clients, strict=True))


def inbox(opened: Opened) -> Inbox:
    host = opened.host
    return Inbox(host, SessionEvents(host, EventLog(host.db, host.bell)))


async def hand_over(opened: Opened, execution_id: str) -> str:
    """Have an execution be taken over by a server that lives and does nothing; return that server's id."""
    idle = opened.host.ids()
    async with opened.host.db.write() as tx:
        await server_store.renew(tx, idle, FOREVER)
        await tx.execute(take_over(execution_id, idle))
    return idle


def take_over(execution_id: str, server_id: str) -> sa.Update:
    """Have a server own an execution that has something to do, as its row says."""
    taken = executions.update().where(executions.c.id == execution_id)
    return taken.values(owner=server_id, fence=executions.c.fence + 1, wake_time=ACTIVE)


async def seem_active(opened: Opened, **values: object) -> None:
    """Have all executions seem to have something to do, so that whoever takes them over reads their logs at once."""
    async with opened.host.db.write() as tx:
        await tx.execute(executions.update().values(wake_time=ACTIVE, **values))


async def started(api: Api, session_id: str) -> str:
    return (await ask(api, "StartExecution", session=session_id, spec={"definition": "workflow"})).execution.id


async def state_of(api: Api, execution_id: str) -> str:
    state = (await ask(api, "GetExecution", execution=execution_id)).execution.state
    return pb.ExecutionState.Name(state).removeprefix("EXECUTION_STATE_")


async def ended(api: Api, execution_id: str) -> list[str]:
    """The types of an execution's events, once it has ended."""
    watch = api.executions.WatchExecution(pb.WatchExecutionRequest(execution=execution_id))
    return [event.type async for batch in watch for event in batch.events]


async def lease_of(opened: Opened) -> int:
    async with opened.host.db.reserved() as tx:
        lease_until = sa.type_coerce(servers.c.lease_until, sa.BigInteger)
        return (await tx.execute(sa.select(lease_until))).scalar_one()
