"""A server answers calls before it recovers what was left, and goes on answering while it does."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import flows
import grpc
import pytest
from blobhub.v1 import execution_pb2
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.workflow.components.contract import ComponentContext, EffectComponent, Inputs, Outcome, PortSpec
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.definitions import examination
from blobhub_server.workflow.definitions.document import Problem, ProblemType
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.runtime.decision import Decision
from blobhub_server.workflow.runtime.embedded import recovery
from blobhub_server.workflow.runtime.embedded.caution import decide_with_caution
from blobhub_server.workflow.runtime.embedded.recovery import Recovery
from blobhub_server.workflow.runtime.embedded.runner import Runner
from blobhub_server.workflow.runtime.embedded.runners import Runners
from blobhub_server.workflow.store import event as event_store
from blobhub_server.workflow.store.execution import executions
from calling import ask
from databases import select
from figures import Figure
from grpc_health.v1 import health_pb2, health_pb2_grpc
from scale import scaled
from several_servers import ended, seem_active, started, state_of, together
from waiting import until

LEFT = scaled(10_000, least=200)
AT_ONCE = 16
SERVERS = 6


async def test_calls_are_answered_before_anything_is_recovered(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever recovery does, and if it takes for ever: what is not recovered yet can be read, watched and stopped."""
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        session_id, key = await api.session(flows.delay(600)), api.key
        await api.put(flows.steps(3), alias="steps")
        ids = [await started(api, session_id) for _ in range(3)]
        await seem_active(opened)
    begun, may_go_on, load = asyncio.Event(), asyncio.Event(), Recovery.load_runner

    async def load_later(recovery: Recovery, execution: Execution) -> object:
        begun.set()
        await may_go_on.wait()
        return await load(recovery, execution)

    monkeypatch.setattr(Recovery, "load_runner", load_later)
    async with together(tmp_path, database_url, count=1, key=key) as ((opened, api),):
        answer = await health_pb2_grpc.HealthStub(api.channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        await begun.wait()
        assert [await state_of(api, id_) for id_ in ids] == ["WAITING"] * 3
        watches = [asyncio.create_task(ended(api, id_)) for id_ in ids]
        await ask(api, "StopExecution", execution=ids[0])
        assert await state_of(api, ids[0]) == "STOPPING"
        new = await ask(api, "StartExecution", session=session_id, spec={"definition": "steps"})
        assert (await ended(api, new.execution.id))[-1] == "flow.exited"
        assert opened.runtime._runners.running == frozenset()
        may_go_on.set()
        await watches[0]
        for id_ in ids[1:]:
            await ask(api, "StopExecution", execution=id_)
        assert [types[-1] for types in await asyncio.gather(*watches)] == ["flow.stopped"] * 3


async def test_calls_are_answered_while_very_many_executions_are_recovered(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        session_id, key = await api.session(flows.delay(600)), api.key

        async def start_some() -> None:
            for _ in range(LEFT // AT_ONCE):
                await started(api, session_id)

        await asyncio.gather(*(start_some() for _ in range(AT_ONCE)))
        last = await started(api, session_id)
        await seem_active(opened)
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
            answered += last not in recovered
        await ask(api, "StopExecution", execution=last)
        assert (await ended(api, last))[-1] == "flow.stopped"
    count = len(recovered)
    assert count == len(set(recovered)) == LEFT // AT_ONCE * AT_ONCE + 1
    assert answered, "calls waited for the whole of recovery"
    assert set(await select(database_url, "SELECT fence FROM executions")) == {(2,)}
    figure(f"{count} executions recovered, {answered} calls answered meanwhile, one at a time")


async def test_what_was_counted_before_is_recovered_first_and_one_at_a_time(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the one that is counted when the server goes down is the one that it went down under."""
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        session_id, key = await api.session(flows.delay(600)), api.key
        ids = [await started(api, session_id) for _ in range(4)]
        for id_, recoveries in ((ids[2], 1), (ids[3], 2)):
            async with opened.host.db.write() as tx:
                await tx.execute(executions.update().where(executions.c.id == id_).values(recoveries=recoveries))
        await seem_active(opened)
    noted: list[tuple[str, str]] = []
    resume, settle = Runner.resume, Runner.settle

    def note_resumed(runner: Runner, *, cautious: bool) -> None:
        noted.append(("resumed", runner.execution.id))
        resume(runner, cautious=cautious)

    async def note_settled(runner: Runner) -> None:
        await settle(runner)
        noted.append(("settled", runner.execution.id))

    monkeypatch.setattr(Runner, "resume", note_resumed)
    monkeypatch.setattr(Runner, "settle", note_settled)
    async with together(tmp_path, database_url, count=1, key=key) as ((opened, _),):
        await until(lambda: opened.runtime._runners.running == set(ids))
        await until(lambda: _counts(database_url))
    first = [(what, id_) for id_ in (ids[2], ids[3]) for what in ("resumed", "settled")]
    assert noted == [*first, ("resumed", ids[0]), ("resumed", ids[1])]


async def test_a_counted_execution_that_does_not_go_on_keeps_no_other_from_being_recovered(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        session_id, key = await api.session(flows.delay(2)), api.key
        ids = [await started(api, session_id) for _ in range(6)]
        await seem_active(opened, recoveries=1)

    async def wait_for_ever(runner: Runner) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Runner, "settle", wait_for_ever)
    monkeypatch.setattr(recovery, "SETTLE_SECONDS", 0.05)
    async with together(tmp_path, database_url, count=1, key=key) as ((_, api),):
        for id_ in ids:
            assert (await ended(api, id_))[-1] == "flow.exited"


async def test_a_running_execution_goes_on_with_a_definition_that_a_newer_check_finds_an_error_in(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with together(tmp_path, database_url, count=1) as ((_, api),):
        session_id, key = await api.session(flows.delay(1)), api.key
        id_ = await started(api, session_id)
    problem = Problem(type=ProblemType.MISSING_PORT, component_id="wait", path="", message="an error since today")
    monkeypatch.setattr(examination, "check", lambda *_: [problem])
    async with together(tmp_path, database_url, count=1, key=key) as ((_, api),):
        assert (await ended(api, id_))[-1] == "flow.exited"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await started(api, session_id)
        assert reason_of(refused.value) == "DEFINITION_NOT_RUNNABLE"


class Lasting(EffectComponent):
    """Notes the key and the number of each attempt, and does not end."""

    type = "test.lasting"
    title = "Lasting"
    ports = (PortSpec(category="flow_input", route="in", description="Control enters here."),)
    routes = ("success",)

    def __init__(self) -> None:
        self.attempts: list[tuple[str, int]] = []

    async def run(self, inputs: Inputs, context: ComponentContext) -> Outcome:
        self.attempts.append((context.idempotency_key, context.attempt))
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_step_that_outlasts_many_servers_keeps_its_idempotency_key(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasting, installed = Lasting(), [*ComponentRegistry.load()]
    monkeypatch.setattr(ComponentRegistry, "load", lambda: ComponentRegistry([*installed, lasting]))
    components = [flows.component("start", "flow.start"), flows.component("lasting", lasting.type)]
    key = ""
    for server in range(1, SERVERS + 1):
        async with together(tmp_path, database_url, count=1, key=key, lease_seconds=1) as ((_, api),):
            if server == 1:
                document = flows.document(components, [flows.control("start", "lasting")])
                id_, key = await started(api, await api.session(document)), api.key
            await until(lambda server=server: len(lasting.attempts) == server)
    assert lasting.attempts == [(f"{id_}/2", attempt) for attempt in range(1, SERVERS + 1)]


async def test_an_execution_is_cautious_until_it_has_gone_on_once(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn that is counted first takes two commits; one that nothing has ended a server in takes one, as ever."""
    pauses = [flows.component(f"pause-{number}", "flow.delay", seconds=1.5 if number == 0 else 0.01) for number in range(4)]
    pairs = pairwise(["start", *(pause["id"] for pause in pauses)])
    document = flows.document([flows.component("start", "flow.start"), *pauses], [flows.control(a, b) for a, b in pairs])
    async with together(tmp_path, database_url, count=1) as ((_, api),):
        id_, key = await started(api, await api.session(document)), api.key
    entered = set()

    def decide(*arguments: Any) -> Decision:
        decision = decide_with_caution(*arguments)
        entered.add(decision.progress.state.steps)
        return decision

    monkeypatch.setattr("blobhub_server.workflow.runtime.embedded.runner.decide_with_caution", decide)
    async with together(tmp_path, database_url, count=1, key=key) as ((_, api),):
        assert (await ended(api, id_))[-1] == "flow.exited"
    assert entered == {2}, "the start and the pause that was under way"


async def _counts(url: str) -> bool:
    """Whether no count is left: all of them wait, and have nothing to evaluate."""
    return await select(url, "SELECT DISTINCT recoveries FROM executions") == [(0,)]


async def test_of_a_log_that_is_replayed_no_more_is_in_memory_than_a_portion(tmp_path: Path, database_url: str) -> None:
    given = execution_pb2.ExecutionInput(alias="v", value_json=json.dumps("x" * 900_000))
    steps = [flows.component(f"s{number}", "logic.expression", expression="v") for number in range(8)]
    components = [flows.component("start", "flow.start"), flows.value("v", "v", persistence="execution"), *steps]
    connections = [flows.data("v", "value", step["id"], "v") for step in steps]
    connections += [flows.control("start", "s0"), *(flows.control(f"s{n}", f"s{n + 1}", "success") for n in range(7))]
    document = flows.document(components, connections)
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        spec = execution_pb2.ExecutionSpec(definition="workflow", input_data=[given])
        run = execution_pb2.RunExecutionRequest(session=await api.session(document), spec=spec)
        last = [message async for message in api.executions.RunExecution(run)][-1].execution
        assert last.state == execution_pb2.EXECUTION_STATE_COMPLETED, last.failure
        portions: list[list[str]] = []
        async with opened.host.db.scan(("", "")) as tx:
            whole = await event_store.records_after(tx, last.id, 0, limit=1_000)
            bounds = {"limit": 1_000, "max_characters": 2_000_000}
            while found := await event_store.records_to_replay(tx, last.id, sum(map(len, portions)), **bounds):
                portions.append(found)
    assert [record for portion in portions for record in portion] == whole
    assert sum(map(len, whole)) > 8 * 900_000
    assert max(sum(map(len, portion[:-1])) for portion in portions) < 2_000_000
