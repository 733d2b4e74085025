"""What others can cause is logged with its reason, and in bounded numbers."""

from __future__ import annotations

import flows
import grpc
import pytest
import structlog
from blobhub.v1 import execution_pb2
from blobhub_server.bounded_log import BoundedLog
from calling import ask
from served import Api
from waiting import until

FAILING = "raise ValueError('the password is ' + 'sword' + 'fish')"


async def test_of_many_lines_some_are_written_and_the_rest_are_counted() -> None:
    with structlog.testing.capture_logs() as logged:
        log = BoundedLog("call", max_lines=3, window_seconds=0.2)
        for number in range(10):
            log.write("info", ("Method", "REASON"), number=number)
        log.write("info", ("Method", "OTHER"), number=10)
        more = await until(lambda: [line for line in logged if line["event"] == "call_more"])
        assert [line["number"] for line in logged if line["event"] == "call"] == [0, 1, 2, 10]
        assert [(line["about"], line["count"]) for line in more] == [("Method REASON", 7)]
        log.write("info", ("Method", "REASON"), number=11)
        assert logged[-1]["number"] == 11, "a new window has begun"


async def test_a_refused_call_is_logged_with_reason_and_caller(api: Api, anonymous: Api) -> None:
    caller = (await ask(api, "GetCaller")).caller
    with structlog.testing.capture_logs() as logged:
        for client in (api, anonymous):
            with pytest.raises(grpc.aio.AioRpcError):
                await ask(client, "GetBlob", blob="acme/swordfish")
        with pytest.raises(grpc.aio.AioRpcError):
            await api.channel.unary_unary("/no.Such/Method")(b"")
    first, second, third = [line for line in logged if line["event"] == "call"]
    assert (first["method"], first["caller"]) == ("/blobhub.v1.BlobService/GetBlob", caller.user_id)
    assert (first["code"], first["reason"]) == ("NOT_FOUND", "NOT_FOUND")
    assert (second["code"], second["reason"], second["caller"]) == ("UNAUTHENTICATED", "UNAUTHENTICATED", "")
    assert second["peer"].startswith("ipv4:127.0.0.1:")
    assert (third["method"], third["code"]) == ("(unknown)", "UNIMPLEMENTED")
    assert "swordfish" not in str(logged)


async def test_a_failed_execution_is_logged_with_reason_component_and_caller(api: Api) -> None:
    caller = (await ask(api, "GetCaller")).caller
    session_id = await api.session(flows.code(FAILING))
    request = execution_pb2.RunExecutionRequest(
        session=session_id, spec={"definition": "workflow"}, request_id="01890000-0000-7000-8000-000000000001"
    )
    with structlog.testing.capture_logs() as logged:
        messages = [message async for message in api.executions.RunExecution(request)]
        (line,) = await until(lambda: [line for line in logged if line["event"] == "execution_failed"])
    execution = messages[-1].execution
    assert execution.failure.reason
    assert (line["execution_id"], line["blob_id"]) == (execution.id, execution.blob_id)
    assert (line["definition"], line["reason"]) == ("workflow", execution.failure.reason)
    assert (line["component"], line["caller"], line["log_level"]) == ("script", caller.user_id, "warning")
    assert "swordfish" not in str(logged)
