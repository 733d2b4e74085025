"""Executions that count in a session object at once, on servers that are killed amid: each counts once."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import counters
import grpc
import pytest
from blobhub.v1 import execution_pb2 as pb
from blobhub.v1 import session_pb2
from blobhub_client import page
from calling import ask
from counters import COUNTERS
from figures import Figure
from killing import work_until_killed
from scale import scaled
from served import Api, ServerProcess, connected

KILLS = scaled(20, least=3)
AT_ONCE = 20
LEASE_SECONDS = 1


async def start_until_killed(api: Api, session_id: str, acknowledged: set[str], seed: random.Random) -> None:
    """Start executions that count, each in some way, until the server goes away."""
    while True:
        definition = f"way-{seed.randrange(len(COUNTERS))}"
        request_id = str(uuid.UUID(int=seed.getrandbits(128), version=4))
        try:
            answer = await ask(
                api, "StartExecution", session=session_id, spec={"definition": definition}, request_id=request_id
            )
        except grpc.aio.AioRpcError:
            return
        acknowledged.add(answer.execution.id)
        await asyncio.sleep(seed.random() * 0.05)


async def ended_in(api: Api, session_id: str) -> dict[str, str]:
    """The state that each execution of a session has ended in, by id."""
    listing = pb.ListExecutionsRequest(blob="acme/pipeline", session=session_id, page_size=1000)
    states = {}
    for execution in [item async for item in page(api.executions.ListExecutions, listing)]:
        watch = api.executions.WatchExecution(pb.WatchExecutionRequest(execution=execution.id))
        types = [event.type async for batch in watch for event in batch.events]
        states[execution.id] = types[-1]
    return states


async def changes_in(api: Api, session_id: str) -> int:
    """How often the log says that the counter was changed."""
    watch = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id, replay_only=True))
    return sum([event.type == "session_object_modified" async for batch in watch for event in batch.events])


@pytest.mark.timeout(3600)
async def test_each_execution_counts_once_however_often_servers_are_killed(
    tmp_path: Path, database_url: str, figure: Figure
) -> None:
    """There are two servers on PostgreSQL, which take over from each other."""
    seed, acknowledged = random.Random(20261127), set()
    count = 1 if database_url.startswith("sqlite") else 2
    servers = [ServerProcess(tmp_path / "data", database_url, lease_seconds=LEASE_SECONDS) for _ in range(count)]
    async with AsyncExitStack() as stack:
        for server in servers:
            await stack.enter_async_context(server.running())
            server.admin_key = server.admin_key or servers[0].admin_key
        api = await stack.enter_async_context(connected(servers[0].address, servers[0].admin_key))
        session_id = await api.session(counters.expression())
        for number, document in enumerate(COUNTERS.values()):
            await api.put(document, alias=f"way-{number}")

        start = partial(start_until_killed, session_id=session_id, acknowledged=acknowledged, seed=seed)

        async def kill_and_restart(server: ServerProcess) -> None:
            for _ in range(KILLS):
                await work_until_killed(server, database_url, start, AT_ONCE, acknowledged, seed)

        await asyncio.gather(*map(kill_and_restart, servers))
        api = await stack.enter_async_context(connected(servers[0].address, servers[0].admin_key))
        states = await ended_in(api, session_id)
        assert acknowledged <= states.keys()
        assert Counter(states.values()) == {"flow.exited": len(states)}
        assert await counters.count_in(api, session_id) == len(states) == await changes_in(api, session_id)
        figure(f"{count * KILLS} kills, {len(states)} executions, {len(acknowledged)} of them acknowledged")
