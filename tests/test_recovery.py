"""A server answers calls before it recovers what was left, and goes on answering while it does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import flows
import pytest
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.runtime.embedded.recovery import Recovery
from blobhub_server.workflow.runtime.embedded.runners import Runners
from calling import ask
from databases import select
from figures import Figure
from grpc_health.v1 import health_pb2, health_pb2_grpc
from scale import scaled
from several_servers import ended, started, state_of, together

LEFT = scaled(10_000, least=200)
AT_ONCE = 16


async def test_calls_are_answered_before_anything_is_recovered(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever recovery does, and if it takes for ever: what is not recovered yet can be read, watched and stopped."""
    async with together(tmp_path, database_url, count=1) as ((_, api),):
        session_id, key = await api.session(flows.delay(0.5)), api.key
        ids = [await started(api, session_id) for _ in range(3)]
    begun, may_go_on, load = asyncio.Event(), asyncio.Event(), Recovery._load_runner

    async def load_later(recovery: Recovery, execution: Execution) -> object:
        begun.set()
        await may_go_on.wait()
        return await load(recovery, execution)

    monkeypatch.setattr(Recovery, "_load_runner", load_later)
    async with together(tmp_path, database_url, count=1, key=key) as ((opened, api),):
        answer = await health_pb2_grpc.HealthStub(api.channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        await begun.wait()
        assert [await state_of(api, id_) for id_ in ids] == ["WAITING"] * 3
        watches = [asyncio.create_task(ended(api, id_)) for id_ in ids]
        await ask(api, "StopExecution", execution=ids[0])
        assert await state_of(api, ids[0]) == "STOPPING"
        assert (await ended(api, await started(api, session_id)))[-1] == "flow.exited"
        assert opened.runtime._runners.running == frozenset()
        may_go_on.set()
        assert [types[-1] for types in await asyncio.gather(*watches)] == ["flow.stopped", "flow.exited", "flow.exited"]


async def test_calls_are_answered_while_very_many_executions_are_recovered(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    async with together(tmp_path, database_url, count=1) as ((_, api),):
        session_id, key = await api.session(flows.delay(600)), api.key

        async def start_some() -> None:
            for _ in range(LEFT // AT_ONCE):
                await started(api, session_id)

        await asyncio.gather(*(start_some() for _ in range(AT_ONCE)))
        last = await started(api, session_id)
    recovered: list[str] = []
    add = Runners.add

    def note(runners: Runners, runner: object, inbox: object = ()) -> bool:
        recovered.append(runner.execution.id)
        return add(runners, runner, inbox)

    monkeypatch.setattr(Runners, "add", note)
    async with together(tmp_path, database_url, count=1, key=key) as ((_, api),):
        answered = 0
        while last not in recovered:
            await ask(api, "GetExecution", execution=last)
            answered += 1
        await ask(api, "StopExecution", execution=last)
        assert (await ended(api, last))[-1] == "flow.stopped"
    count = len(recovered)
    assert count == len(set(recovered)) == LEFT // AT_ONCE * AT_ONCE + 1
    assert answered > count / 500, "calls waited for the whole of recovery"
    assert set(await select(database_url, "SELECT fence FROM executions")) == {(2,)}
    figure(f"{count} executions recovered, {answered} calls answered meanwhile, one at a time")
