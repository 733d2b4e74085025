"""What others can cause is logged with its reason, and in bounded numbers."""

from __future__ import annotations

from pathlib import Path

import flows
import grpc
import pytest
import structlog
from blobhub.v1 import execution_pb2
from blobhub_server.bounded_log import MAX_LINES, BoundedLog
from blobhub_server.clock import utc_now
from blobhub_server.db.notify import Doorbell
from blobhub_server.db.opening import open_database
from blobhub_server.ids import Uuid7
from blobhub_server.platform.calls import audit as audit_module
from blobhub_server.platform.calls.audit import Audit
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
    request = execution_pb2.RunExecutionRequest(session=session_id, spec={"definition": "workflow"})
    with structlog.testing.capture_logs() as logged:
        messages = [message async for message in api.executions.RunExecution(request)]
        (line,) = await until(lambda: [line for line in logged if line["event"] == "execution_failed"])
    execution = messages[-1].execution
    assert execution.failure.reason
    assert (line["execution_id"], line["blob_id"]) == (execution.id, execution.blob_id)
    assert (line["definition"], line["reason"]) == ("workflow", execution.failure.reason)
    assert (line["component"], line["caller"], line["log_level"]) == ("script", caller.api_key_id, "warning")
    assert "swordfish" not in str(logged)


@pytest.mark.parametrize("caller", [None, "somebody"], ids=["too many anonymous ones", "the log cannot be written"])
async def test_refusals_that_are_not_recorded_are_logged_in_bounded_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: str | None
) -> None:
    monkeypatch.setattr(audit_module, "ANONYMOUS_BURST", 0)
    db = await open_database(f"sqlite:///{tmp_path / 'blobhub.db'}")  # It has no tables.
    audit = Audit(db, Doorbell(db), utc_now, Uuid7())
    entry = {"method": "Method", "code": "NOT_FOUND", "user_id": caller, "api_key_id": None}
    with structlog.testing.capture_logs() as logged:
        for code in ("NOT_FOUND", "UNAUTHENTICATED"):
            for _ in range(2 * MAX_LINES):
                await audit.record_refusal(entry | {"code": code})
    written = [line["code"] for line in logged if line["event"] == "refusal_not_recorded"]
    assert written == ["NOT_FOUND"] * MAX_LINES + ["UNAUTHENTICATED"] * MAX_LINES
    await audit.close()
    await db.close()
