"""A script on session objects that others change all the time ends: the others here wait for it, or it fails by name."""

from __future__ import annotations

import flows
import pytest
from blobhub.v1 import execution_pb2 as pb
from blobhub_server.workflow.interpreter import Completion, RunStep
from blobhub_server.workflow.runtime.embedded import underway
from calling import ask
from counters import COUNTER, script, session_value
from google.protobuf.struct_pb2 import Value
from served import Api
from waiting import within_deadline

SLOW = "n = 0\nfor i in range(60000):\n    n += 1\nset_data_output('result', inputs.n + 1)"


def counting_without_end() -> str:
    """An expression that counts in the session object again and again."""
    return flows.document(
        [
            flows.component("start", "flow.start"),
            session_value(value=0),
            flows.component("count", "logic.expression", expression="n + 1"),
        ],
        [
            flows.control("start", "count"),
            flows.control("count", "count", "success"),
            flows.data("count", "result", COUNTER, "value"),
            flows.data(COUNTER, "value", "count", "n"),
        ],
    )


async def test_a_slow_script_ends_beside_an_execution_that_changes_what_it_reads_all_the_time(api: Api) -> None:
    session = await api.session(counting_without_end())
    await api.put(script(SLOW, value=0), alias="slow")
    spec = {"definition": "workflow", "step_limit": 1_000_000}
    looping = (await ask(api, "StartExecution", session=session, spec=spec)).execution.id
    slow = await within_deadline(ask(api, "RunExecution", session=session, spec={"definition": "slow"}))
    assert slow.execution.state == pb.EXECUTION_STATE_COMPLETED
    await ask(api, "StopExecution", execution=looping)


async def test_a_script_whose_objects_a_client_changes_each_time_fails_by_name(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(underway, "FREE_CONFLICTS", 1)
    monkeypatch.setattr(underway, "MAX_CONFLICTS", 3)
    session = await api.session(script(value=0))
    runs, perform = 0, underway.Underway._perform

    async def change_and_perform(steps: underway.Underway, command: RunStep) -> Completion:
        nonlocal runs
        runs += 1
        await ask(api, "PutSessionObject", session=session, alias=COUNTER, value=Value(number_value=runs))
        return await perform(steps, command)

    monkeypatch.setattr(underway.Underway, "_perform", change_and_perform)
    ended = await within_deadline(ask(api, "RunExecution", session=session, spec={"definition": "workflow"}))
    assert ended.execution.failure.reason == "SESSION_CONFLICT"
    assert runs == 3
