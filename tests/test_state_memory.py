"""What the states of all executions of an organization may take in memory on one server."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import counters
import flows
import pytest
from blobhub.v1 import execution_pb2
from blobhub_server.workflow.interpreter.size import json_memory, memory_of
from blobhub_server.workflow.runtime.embedded import state_memory
from blobhub_server.workflow.runtime.embedded.state_memory import StateMemory
from blobhub_server.workflow.runtime.performer import Performer
from calling import ask, outcome
from interpreting import EXECUTION
from runs import run
from served import Api
from waiting import until, within_deadline

TEXT_BYTES = 1_000_000


def test_only_the_organization_that_has_the_most_may_have_no_more_where_all_have_much() -> None:
    memory = StateMemory()
    most = state_memory.MAX_ORGANIZATION_BYTES
    large, small = (replace(EXECUTION, id=name, organization_id=name) for name in ("large", "small"))
    assert not memory.count(large, most)
    assert not memory.count(small, state_memory.MAX_BYTES - most)
    assert not memory.count(small, state_memory.MAX_BYTES - most + 1)
    assert memory.count(replace(large, id="another"), 1)
    memory.forget(large)
    assert not memory.count(replace(large, id="another"), 2)


def waiting() -> str:
    """A text that is given, and a delay."""
    given = flows.value("given", "given", persistence="execution", value="")
    wait = flows.component("wait", "flow.delay", seconds=600)
    return flows.document([flows.component("start", "flow.start"), given, wait], [flows.control("start", "wait")])


async def test_an_execution_fails_that_takes_more_than_its_organization_may_and_those_of_others_go_on(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_memory, "MAX_ORGANIZATION_BYTES", 3 * TEXT_BYTES)

    async def start(session: str) -> str:
        given = [{"alias": "given", "value_json": f'"{"x" * TEXT_BYTES}"'}]
        spec = {"definition": "workflow", "input_data": given}
        return (await ask(api, "StartExecution", session=session, spec=spec)).execution.id

    async def ends(execution: str) -> str:
        """Stop an execution; why it has failed before, if it has."""
        await outcome(ask(api, "StopExecution", execution=execution))

        async def ended() -> execution_pb2.Execution | None:
            found = (await ask(api, "GetExecution", execution=execution)).execution
            return found if found.HasField("end_time") else None

        return (await until(ended)).failure.reason

    async def has_failed() -> bool:
        return (await ask(api, "GetExecution", execution=last)).execution.failure.reason == "STATE_LIMIT"

    session = await api.session(waiting())
    first = [await start(session) for _ in range(2)]
    await start(session)
    last = await start(session)
    await until(has_failed)
    other = await start(await api.session(waiting(), organization="other"))
    assert [await ends(execution) for execution in [*first, other]] == ["", "", ""]
    assert await ends(await start(session)) == ""


def test_json_takes_as_much_memory_as_the_value_that_is_read_from_it_about() -> None:
    for value in ("x" * 1_000, "é" * 1_000, [1.5] * 1_000, [[0]] * 1_000, {str(number): "a" for number in range(1_000)}):
        assert memory_of(value) / 2 <= json_memory(json.dumps(value, ensure_ascii=False)) <= 2 * memory_of(value)


async def test_what_scripts_are_run_on_counts_while_they_wait_for_their_turn(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each execution has its object twice: as it was when the step was entered, and as it is when that is run."""
    monkeypatch.setattr(state_memory, "MAX_ORGANIZATION_BYTES", 7 * TEXT_BYTES // 2)
    perform, go_on, waiting = Performer.run, asyncio.Event(), list[str]()

    async def wait(performer: Performer, graph: Any, execution: Any, *others: Any) -> Any:
        waiting.append(execution.id)
        await go_on.wait()
        return await perform(performer, graph, execution, *others)

    monkeypatch.setattr(Performer, "run", wait)
    document = counters.script("set_data_output('result', inputs.n[1:])")
    sessions = [await api.session(document, organization=name) for name in ("first", "second")]
    for session in sessions:
        await counters.put(api, session, "x" * TEXT_BYTES)
    running = [asyncio.create_task(run(api, session)) for session in sessions]
    await until(lambda: len(waiting) == 2)  # of two organizations, which have what they may each
    other = await _another_session(api, sessions[0])
    await counters.put(api, other, "x" * TEXT_BYTES)
    refused = await within_deadline(run(api, other))
    assert refused.failure.reason == "STATE_LIMIT"
    assert "'counter'" in refused.failure.message
    go_on.set()
    for ended in await asyncio.gather(*running):
        assert ended.state == execution_pb2.EXECUTION_STATE_COMPLETED
    assert (await run(api, other)).state == execution_pb2.EXECUTION_STATE_COMPLETED


async def _another_session(api: Api, session: str) -> str:
    revision = (await ask(api, "GetSession", session=session)).session.revision_id
    return (await ask(api, "CreateSession", revision=revision)).session.id
