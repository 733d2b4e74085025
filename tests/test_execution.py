"""Executions, end to end."""

from __future__ import annotations

import flows
import grpc
import pytest
from blobhub.v1 import execution_pb2, session_object_pb2, session_pb2
from google.protobuf.struct_pb2 import Value
from served import Api


async def run(api: Api, session_id: str, *, definition: str = "workflow", **inputs) -> execution_pb2.Execution:
    """Run a definition; return the execution as it ended."""
    data = [execution_pb2.ExecutionInput(alias=alias, value=value) for alias, value in inputs.items()]
    request = execution_pb2.RunExecutionRequest(session_id=session_id, definition=definition, input_data=data)
    messages = [message async for message in api.executions.RunExecution(request)]
    return messages[-1].execution


async def test_a_workflow_runs_end_to_end(api: Api) -> None:
    session_id = await api.session(flows.steps(3))
    ended = await run(api, session_id)
    assert ended.state == execution_pb2.EXECUTION_STATE_COMPLETED
    assert ended.result.number_value == 3
    assert ended.last_sequence == 12
    found = await api.executions.GetExecution(execution_pb2.GetExecutionRequest(execution_id=ended.id))
    assert found.execution == ended


async def test_a_script_gets_its_input_and_gives_its_output(api: Api) -> None:
    session_id = await api.session(flows.code("set_data_output('result', get_data_input('given') * 2)"))
    ended = await run(api, session_id, given=Value(number_value=21))
    assert ended.state == execution_pb2.EXECUTION_STATE_COMPLETED, ended
    assert ended.result.number_value == 42


async def test_a_delay_waits(api: Api) -> None:
    session_id = await api.session(flows.delay(0.1))
    ended = await run(api, session_id)
    assert ended.state == execution_pb2.EXECUTION_STATE_COMPLETED
