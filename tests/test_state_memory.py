"""What the states of all executions of an organization may take in memory on one server."""

from __future__ import annotations

from dataclasses import replace

import flows
import pytest
from blobhub.v1 import execution_pb2
from blobhub_server.workflow.runtime.embedded import state_memory
from blobhub_server.workflow.runtime.embedded.state_memory import StateMemory
from calling import ask, outcome
from interpreting import EXECUTION
from served import Api
from waiting import until

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
