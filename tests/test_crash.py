"""`kill -9` at any moment: no acknowledged execution is lost, each ends once, recorded steps are not run again."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import grpc
import pytest
from blobhub.v1 import event_pb2, execution_pb2, session_pb2
from blobhub_client import page
from figures import Figure
from interpreting import TERMINAL
from killing import work_until_killed
from mixed import Counting, check_requests, mixed
from scale import scaled
from served import Api, ServerProcess, connected
from web import web

ROUNDS = scaled(scaled(300, least=60), least=10)
ROUNDS_BETWEEN_CHECKS = scaled(20, least=5)
EXECUTIONS = 20
ENDED = {
    execution_pb2.EXECUTION_STATE_COMPLETED,
    execution_pb2.EXECUTION_STATE_FAILED,
    execution_pb2.EXECUTION_STATE_STOPPED,
}


async def start_until_killed(api: Api, session_id: str, acknowledged: set[str], seed: random.Random) -> None:
    """Start executions one after the other until the server goes away; half of them get the signal that they wait for."""
    while len(acknowledged) < EXECUTIONS * 1000:
        request = execution_pb2.StartExecutionRequest(
            session=session_id,
            spec={"definition": "workflow"},
            request_id=str(uuid.UUID(int=seed.getrandbits(128), version=4)),
        )
        try:
            answer = await api.executions.StartExecution(request)
        except grpc.aio.AioRpcError:
            return
        acknowledged.add(answer.execution.id)
        await asyncio.sleep(seed.random() * 0.05)
        if seed.random() < 0.5:
            signal = execution_pb2.SignalExecutionRequest(execution=answer.execution.id, name="go", value_json="1")
            with suppress(grpc.aio.AioRpcError):  # It may have gone on without, and the server may be gone.
                await api.executions.SignalExecution(signal)


async def read_log(api: Api, session_id: str) -> list[event_pb2.Event]:
    """The session's log, once all of its executions have ended."""
    listing = execution_pb2.ListExecutionsRequest(blob="acme/pipeline", session=session_id, page_size=1000)
    for execution in [item async for item in page(api.executions.ListExecutions, listing)]:
        if execution.state not in ENDED:
            request = execution_pb2.WatchExecutionRequest(execution=execution.id)
            _ = [batch async for batch in api.executions.WatchExecution(request)]
    watch = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id, replay_only=True))
    return [event async for batch in watch for event in batch.events]


def check_log(events: list[event_pb2.Event], acknowledged: set[str]) -> None:
    """The log is dense, each execution's part is dense and well-formed, and ends once."""
    assert [event.session_sequence for event in events] == list(range(1, len(events) + 1))
    by_execution: dict[str, list[event_pb2.Event]] = {}
    for event in events:
        if event.execution_id:
            by_execution.setdefault(event.execution_id, []).append(event)
    assert acknowledged <= by_execution.keys(), "an acknowledged execution is lost"
    for own in by_execution.values():
        assert [event.execution_sequence for event in own] == list(range(1, len(own) + 1))
        types = [event.type for event in own]
        assert types[0] == "flow.entered"
        assert sum(kind in TERMINAL for kind in types) == 1
        assert types[-1] in TERMINAL
        exits = Counter(event.processor.step for event in own if event.type == "processor.exited")
        assert set(exits.values()) <= {1}, "a recorded step was run again"
        entries = Counter(event.processor.step for event in own if event.type == "processor.entered")
        assert set(entries.values()) == {1}
        assert exits.keys() <= entries.keys()
        if types[-1] == "flow.exited":
            assert exits.keys() == entries.keys()
            assert own[-1].flow_exited.result.string_value == "done"
        attempts: dict[int, int] = {}
        for event in own:
            if event.type == "processor.retrying":
                step = event.processor.step
                assert event.processor.attempt == attempts.get(step, 1)
                assert event.processor_retrying.attempt == event.processor.attempt + 1
                attempts[step] = event.processor_retrying.attempt
                assert step not in {
                    e.processor.step for e in own[: event.execution_sequence - 1] if e.type == "processor.exited"
                }
            elif event.HasField("processor"):
                assert event.processor.attempt == attempts.get(event.processor.step, 1)


def run_again(events: list[event_pb2.Event]) -> int:
    """How many steps were caught in flight, and run again."""
    return sum(event.type == "processor.retrying" for event in events)


@pytest.mark.timeout(7200)
async def test_no_kill_loses_anything(tmp_path: Path, database_url: str, figure: Figure) -> None:
    seed = random.Random(20261124)
    async with web(Counting(seed).respond) as other:
        address = f"127.0.0.1:{other.port}"
        server = ServerProcess(tmp_path / "data", database_url, lease_seconds=1, http_allow=address)
        await server.start()
        acknowledged: set[str] = set()
        events: list[event_pb2.Event] = []
        kills = 0
        async with connected(server.address, server.admin_key) as api:
            session_id = await api.session(mixed(other.url))
        start = partial(start_until_killed, session_id=session_id, acknowledged=acknowledged, seed=seed)
        # Which moments find a step in flight is chance: there are as many kills as it takes to show one.
        while kills < ROUNDS or not run_again(events):
            await work_until_killed(server, database_url, start, EXECUTIONS, acknowledged, seed)
            kills += 1
            if kills >= ROUNDS or kills % ROUNDS_BETWEEN_CHECKS == 0:
                async with connected(server.address, server.admin_key) as api:
                    events = await read_log(api, session_id)
                check_log(events, acknowledged)
        assert len(acknowledged) >= ROUNDS
        twice = check_requests(other, events)
        counts = f"{kills} kills, {len(acknowledged)} executions, {len(events)} events, {run_again(events)} steps run again"
        figure(f"{counts}, {len(other.asked)} requests, {twice} sent more than once")
        assert server.stop() == 0
