"""What a step starts is started once, and ends with it, whenever servers go down."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import flows
import grpc
import pytest
from blobhub.v1 import execution_pb2 as pb
from blobhub_client import get_value, page
from blobhub_server.workflow.children import ChildStarts
from blobhub_server.workflow.errors import ExecutionEnded
from calling import ask
from composing import begin, child_of, children_of, events, executes, listed, state
from databases import select
from killing import work_until_killed
from scale import scaled
from scoping import controls, inside
from served import Api, ServerProcess, connected
from several_servers import together
from signals import waiting
from waiting import until

ROUNDS = scaled(30, least=2)
AT_ONCE = 4


async def start_until_killed(api: Api, session_id: str, acknowledged: set[str], seed: random.Random) -> None:
    """Start executions one after the other until the server goes away."""
    while True:
        fields = {"session": session_id, "spec": {"definition": "workflow"}}
        try:
            answer = await ask(
                api, "StartExecution", request_id=str(uuid.UUID(int=seed.getrandbits(128), version=4)), **fields
            )
        except grpc.aio.AioRpcError:
            return
        acknowledged.add(answer.execution.id)
        await asyncio.sleep(seed.random() * 0.05)


@pytest.mark.parametrize("seed", [7])
async def test_servers_that_are_killed_start_each_child_once_and_lose_none(
    tmp_path: Path, database_url: str, seed: int
) -> None:
    chance, acknowledged = random.Random(seed), set[str]()
    server = ServerProcess(tmp_path / "data", database_url, lease_seconds=1)
    async with server.running():
        async with connected(server.address, server.admin_key) as api:
            session = await api.session(executes("middle"))
            await api.put(executes("last"), alias="middle")
            await api.put(flows.delay(0.02), alias="last")
        for _ in range(ROUNDS):
            await work_until_killed(
                server,
                database_url,
                lambda api: start_until_killed(api, session, acknowledged, chance),
                AT_ONCE,
                acknowledged,
                chance,
            )
        async with connected(server.address, server.admin_key) as api:
            await until(lambda: _all_ended(database_url))
            listing = pb.ListExecutionsRequest(blob="acme/pipeline", page_size=1000)
            found = [each async for each in page(api.executions.ListExecutions, listing)]
    assert {each.state for each in found} == {pb.EXECUTION_STATE_COMPLETED}
    named = Counter(each.definition_alias for each in found)
    assert named["workflow"] == named["middle"] == named["last"]
    assert named["workflow"] >= len(acknowledged) > 0
    assert set(Counter(each.parent_execution_id for each in found if each.parent_execution_id).values()) == {1}


async def _all_ended(url: str) -> bool:
    running = "SELECT id FROM executions WHERE state NOT IN ('completed', 'failed', 'stopped')"
    return not await select(url, running)


async def test_a_step_whose_server_goes_down_after_the_start_waits_for_what_it_has_started(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ChildStarts.start

    async def start_and_hang(starts: ChildStarts, *given: Any) -> None:
        await start(starts, *given)
        await asyncio.Event().wait()

    monkeypatch.setattr(ChildStarts, "start", start_and_hang)
    async with together(tmp_path, database_url, count=1) as ((_, api),):
        session, key = await api.session(executes("last")), api.key
        await api.put(waiting(), alias="last")
        parent = await begin(api, session)
        child = await child_of(api, parent.id)
    monkeypatch.setattr(ChildStarts, "start", start)
    async with together(tmp_path, database_url, count=1, key=key) as ((_, api),):
        await until(lambda: _waits(api, parent.id))
        assert [each.id for each in await children_of(api, parent.id)] == [child.id]
        await ask(api, "SignalExecution", execution=child.id, name="go", value_json="7")
        types = [event.type for event in await events(api, parent.id)]
        assert types.count("processor.retrying") == 1
        assert get_value((await ask(api, "GetExecution", execution=parent.id)).execution, "result") == 7


async def _waits(api: Api, execution_id: str) -> bool:
    return await state(api, execution_id) == pb.EXECUTION_STATE_WAITING


@pytest.mark.either_database
async def test_nothing_is_started_for_a_step_that_has_been_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start comes after the turn that gives the step up: it sees that under the lock of the parent's row."""
    start, asked = ChildStarts.start, asyncio.Queue[Any]()

    async def hang(*given: Any) -> None:
        asked.put_nowait(given)
        await asyncio.Event().wait()

    monkeypatch.setattr(ChildStarts, "start", hang)
    parts = [flows.component("start", "flow.start"), flows.component("try", "flow.try", policy={"timeout": "0.05s"})]
    parts += inside("try", flows.component("run", "workflow.execute", definition="last"))
    parts += [flows.component("then", "flow.wait", name="then")]
    session = await api.session(flows.document(parts, controls("start.next try", "try.body run", "try.failure then")))
    await api.put(waiting(), alias="last")
    parent = await begin(api, session)
    given = await asked.get()
    await until(lambda: _waits(api, parent.id))
    with pytest.raises(ExecutionEnded):
        await start(*given)
    await ask(api, "StopExecution", execution=parent.id)
    await events(api, parent.id)
    with pytest.raises(ExecutionEnded):
        await start(*given)
    assert [each.definition_alias for each in await listed(api)] == ["workflow"]
