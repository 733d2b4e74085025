"""Executions, end to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random

import flows
import grpc
import pytest
from blobhub.v1 import (
    definition_pb2,
    event_pb2,
    execution_pb2,
    session_object_pb2,
    session_pb2,
)
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from calling import ask
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value
from google.rpc import error_details_pb2
from runs import run
from scale import scaled
from served import Api, connected, served
from waiting import DEADLINE_SECONDS, until

MANY = scaled(100, least=20)
"""Runaway scripts, and short ones beside them."""


async def test_a_workflow_runs_end_to_end(api: Api) -> None:
    session_id = await api.session(flows.steps(3))
    ended = await run(api, session_id)
    assert ended.state == execution_pb2.EXECUTION_STATE_COMPLETED
    assert ended.result.number_value == 3
    assert (ended.first_execution_sequence, ended.last_execution_sequence) == (1, 12)
    found = await api.executions.GetExecution(execution_pb2.GetExecutionRequest(execution=ended.id))
    assert found.execution == ended


@pytest.mark.either_database
async def test_a_script_gets_its_input_and_gives_its_output(api: Api) -> None:
    session_id = await api.session(flows.code("set_data_output('result', inputs.given * 2)"))
    ended = await run(api, session_id, given=21)
    assert ended.state == execution_pb2.EXECUTION_STATE_COMPLETED, ended
    assert ended.result.number_value == 42


@pytest.mark.either_database
async def test_a_delay_waits(api: Api) -> None:
    session_id = await api.session(flows.delay(0.1))
    ended = await run(api, session_id)
    assert ended.state == execution_pb2.EXECUTION_STATE_COMPLETED


async def wait_for_state(api: Api, execution_id: str, state: int) -> execution_pb2.Execution:
    """Read an execution until it is in a state."""

    async def reached() -> execution_pb2.Execution | None:
        answer = await api.executions.GetExecution(execution_pb2.GetExecutionRequest(execution=execution_id))
        return answer.execution if answer.execution.state == state else None

    return await until(reached)


async def start(api: Api, session_id: str, **fields) -> execution_pb2.Execution:
    request = execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"} | fields)
    return (await api.executions.StartExecution(request)).execution


async def test_a_stopped_execution_ends_stopped_and_a_completed_one_cannot_be_stopped(api: Api) -> None:
    session_id = await api.session(flows.delay(60))
    started = await start(api, session_id)
    assert started.state == execution_pb2.EXECUTION_STATE_WAITING
    request = execution_pb2.StopExecutionRequest(execution=started.id)
    for _ in range(2):
        answer = await api.executions.StopExecution(request)
        assert answer.execution.state in (
            execution_pb2.EXECUTION_STATE_STOPPING,
            execution_pb2.EXECUTION_STATE_STOPPED,
        )
    ended = await wait_for_state(api, started.id, execution_pb2.EXECUTION_STATE_STOPPED)
    assert ended.HasField("end_time")
    await api.put(flows.steps(1))
    completed = await run(api, session_id)
    stop = api.executions.StopExecution(execution_pb2.StopExecutionRequest(execution=completed.id))
    await expect_refusal(stop, grpc.StatusCode.FAILED_PRECONDITION, "EXECUTION_ENDED")


@pytest.mark.either_database
async def test_a_running_script_is_stopped(api: Api) -> None:
    session_id = await api.session(flows.code("while True: pass"))
    started = await start(api, session_id)
    await api.executions.StopExecution(execution_pb2.StopExecutionRequest(execution=started.id))
    await wait_for_state(api, started.id, execution_pb2.EXECUTION_STATE_STOPPED)


@pytest.mark.either_database
async def test_an_execution_that_takes_too_long_fails(api: Api) -> None:
    session_id = await api.session(flows.delay(60))
    started = await start(api, session_id, timeout=Duration(nanos=50_000_000))
    ended = await wait_for_state(api, started.id, execution_pb2.EXECUTION_STATE_FAILED)
    assert ended.failure.reason == "TIMEOUT"


@pytest.mark.either_database
async def test_a_policys_timeout_fails_a_step_and_its_retries_are_told(api: Api) -> None:
    policy = {"timeout": "0.05s", "retry": {"maximum_attempts": 2, "initial_interval": "0.01s"}}
    session_id = await api.session(flows.code("while True: pass", policy=policy))
    request = execution_pb2.RunExecutionRequest(session=session_id, spec={"definition": "workflow"})
    events = [event async for message in api.executions.RunExecution(request) for event in message.events]
    assert [event.processor_retrying.attempt for event in events if event.type == "processor.retrying"] == [2]
    about = [(event.type, event.processor.step, event.processor.attempt) for event in events if event.HasField("processor")]
    start = [("processor.entered", 1, 1), ("processor.exited", 1, 1)]
    assert about == [*start, ("processor.entered", 2, 1), ("processor.retrying", 2, 1), ("processor.error", 2, 2)]
    assert not any(event.processor.scope_path for event in events)
    assert events[-1].flow_error.failure.reason == "TIMEOUT"


@pytest.mark.either_database
async def test_a_failing_script_names_its_line(api: Api) -> None:
    session_id = await api.session(flows.code("x = 1\ny = 0\nset_data_output('result', x / y)"))
    ended = await run(api, session_id)
    assert ended.state == execution_pb2.EXECUTION_STATE_FAILED
    assert (ended.failure.reason, ended.failure.line) == ("SCRIPT_ERROR", 3)


async def test_a_run_asked_for_twice_is_one_execution(api: Api) -> None:
    session_id = await api.session(flows.steps(2))
    request = execution_pb2.RunExecutionRequest(
        session=session_id, spec={"definition": "workflow"}, request_id="0b6d3a54-5b0c-4d6e-9f2e-0f6f1f1d2c3b"
    )

    async def events() -> list[event_pb2.Event]:
        return [event async for message in api.executions.RunExecution(request) for event in message.events]

    both = await asyncio.gather(events(), events())
    assert both[0] == both[1]
    listed = await api.executions.ListExecutions(
        execution_pb2.ListExecutionsRequest(blob="acme/pipeline", session=session_id)
    )
    assert len(listed.executions) == 1


@pytest.mark.either_database
async def test_edits_of_a_draft_do_not_disturb_what_runs(api: Api) -> None:
    session_id = await api.session(flows.delay(0.2))
    started = await start(api, session_id)
    await api.put(flows.code("while True: pass"))
    ended = await wait_for_state(api, started.id, execution_pb2.EXECUTION_STATE_COMPLETED)
    assert ended.definition_digest == started.definition_digest


@pytest.mark.either_database
async def test_what_cannot_be_run_is_refused_with_every_problem(api: Api) -> None:
    session_id = await api.session(flows.document([flows.component("a", "no.such"), flows.component("b", "flow.end")], []))
    error = await expect_refusal(start(api, session_id), grpc.StatusCode.FAILED_PRECONDITION, "DEFINITION_NOT_RUNNABLE")
    bad = error_details_pb2.BadRequest()
    assert unpack(error, bad)
    assert len(bad.field_violations) == 2
    request = execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "nothing"})
    await expect_refusal(api.executions.StartExecution(request), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    await api.put(flows.steps(1))
    unknown = execution_pb2.ExecutionInput(alias="unknown")
    await expect_refusal(start(api, session_id, input_data=[unknown]), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE")


async def test_a_session_is_closed_with_what_runs_in_it(api: Api) -> None:
    session_id = await api.session(flows.delay(60))
    started = await start(api, session_id)
    await api.sessions.CloseSession(session_pb2.CloseSessionRequest(session=session_id))
    watch = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id))
    types = [event.type async for message in watch for event in message.events]
    assert types[-1] == "session_closed"
    assert types[-4:].count("flow.stopped") == 1
    await wait_for_state(api, started.id, execution_pb2.EXECUTION_STATE_STOPPED)
    found = await api.sessions.GetSession(session_pb2.GetSessionRequest(session=session_id))
    assert found.session.state == session_pb2.SESSION_STATE_CLOSED
    again = await api.sessions.CloseSession(session_pb2.CloseSessionRequest(session=session_id))
    assert again.session == found.session
    await expect_refusal(start(api, session_id), grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_OPEN")
    put = session_object_pb2.PutSessionObjectRequest(session=session_id, alias="a", value=Value(bool_value=True))
    await expect_refusal(api.session_objects.PutSessionObject(put), grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_OPEN")


async def test_sessions_are_listed_by_alias_and_state(api: Api) -> None:
    await api.session(flows.steps(1))
    request = session_pb2.CreateSessionRequest(revision="acme/pipeline", alias="morning")
    named = (await api.sessions.CreateSession(request)).session
    await expect_refusal(api.sessions.CreateSession(request), grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    await api.sessions.CloseSession(session_pb2.CloseSessionRequest(session=named.id))
    second = (await api.sessions.CreateSession(request)).session
    listing = session_pb2.ListSessionsRequest(blob="acme/pipeline", alias="morning")
    assert [item.id for item in (await api.sessions.ListSessions(listing)).sessions] == [named.id, second.id]
    listing.state = session_pb2.SESSION_STATE_OPEN
    assert [item.id for item in (await api.sessions.ListSessions(listing)).sessions] == [second.id]


async def test_session_objects_are_put_listed_read_and_deleted(api: Api) -> None:
    session_id = await api.session(flows.steps(1))
    objects = api.session_objects
    for alias in ("notes/a", "notes/b", "other"):
        value = json_format.ParseDict({"type": "text", "text": alias}, Value())
        put = session_object_pb2.PutSessionObjectRequest(session=session_id, alias=alias, value=value)
        made = (await objects.PutSessionObject(put)).session_object
        assert made.type == "text"
    listing = session_object_pb2.ListSessionObjectsRequest(session=session_id, alias_prefix="notes/", page_size=1)
    page = await objects.ListSessionObjects(listing)
    assert [item.alias for item in page.session_objects] == ["notes/a"]
    listing.page_token = page.next_page_token
    assert [item.alias for item in (await objects.ListSessionObjects(listing)).session_objects] == ["notes/b"]
    get = session_object_pb2.GetSessionObjectRequest(session=session_id, alias="other")
    assert (await objects.GetSessionObject(get)).session_object.value.struct_value["text"] == "other"
    put.etag = "old"
    await expect_refusal(objects.PutSessionObject(put), grpc.StatusCode.ABORTED, "STALE_ETAG")
    await objects.DeleteSessionObject(session_object_pb2.DeleteSessionObjectRequest(session=session_id, alias="other"))
    await expect_refusal(objects.GetSessionObject(get), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_a_workflow_writes_a_session_object_with_its_step(api: Api) -> None:
    definition = flows.document(
        [
            flows.component("start", "flow.start"),
            flows.value("counter", "counter", persistence="session", value=0),
            flows.component("add", "logic.expression", expression="n + 1"),
            flows.component("end", "flow.end"),
        ],
        [
            flows.control("start", "add"),
            flows.control("add", "end", "success"),
            flows.data("counter", "value", "add", "n"),
            flows.data("add", "result", "counter", "value"),
            flows.data("counter", "value", "end", "value"),
        ],
    )
    session_id = await api.session(definition)
    assert [(await run(api, session_id)).result.number_value for _ in range(3)] == [1, 2, 3]
    get = session_object_pb2.GetSessionObjectRequest(session=session_id, alias="counter")
    assert (await api.session_objects.GetSessionObject(get)).session_object.value.number_value == 3
    watch = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id, replay_only=True))
    events = [event async for message in watch for event in message.events]
    assert sum(event.type == "session_object_modified" for event in events) == 3
    assert [event.session_sequence for event in events] == list(range(1, len(events) + 1))


async def test_a_document_is_stored_byte_for_byte_and_a_message_says_the_same(api: Api) -> None:
    document = json.dumps(json.loads(flows.steps(2)) | {"x-editor": {"zoom": 1.50}}, indent=3) + "\n"
    await api.session(document)
    get = definition_pb2.GetDefinitionRequest(definition="acme/pipeline@draft/workflow")
    found = await api.definitions.GetDefinition(get)
    assert found.document == document
    put = definition_pb2.PutDefinitionRequest(revision="acme/pipeline@draft", alias="as-message", content=found.content)
    await api.definitions.PutDefinition(put)
    get.definition = "acme/pipeline@draft/as-message"
    assert (await api.definitions.GetDefinition(get)).content == found.content
    check = definition_pb2.CheckDefinitionRequest(revision="acme/pipeline@draft", definition="as-message")
    assert (await api.definitions.CheckDefinition(check)).runnable


@pytest.mark.either_database
async def test_a_check_reports_every_problem_with_its_place(api: Api) -> None:
    await api.session(flows.steps(1))
    broken = flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("two", "flow.start"),
            flows.component("alone", "logic.expression"),
            flows.component("bad", "logic.expression", expression="1 +"),
            flows.component("wait", "flow.delay", seconds="soon"),
            flows.component("what", "no.such"),
            flows.component("sure", "logic.code", code="pass", policy={"retry": {"maximum_attempts": 0}}),
        ],
        [
            flows.control("start", "bad"),
            flows.control("bad", "wait", "elsewhere"),
            flows.control("wait", "nobody"),
            flows.control("start", "sure"),
            flows.data("start", "value", "bad", "x"),
        ],
    )
    check = definition_pb2.CheckDefinitionRequest(revision="acme/pipeline@draft", document=broken)
    answer = await api.definitions.CheckDefinition(check)
    assert not answer.runnable
    named = {
        (
            definition_pb2.DefinitionProblemType.Name(p.type).removeprefix("DEFINITION_PROBLEM_TYPE_"),
            p.component_id,
        )
        for p in answer.problems
    }
    assert named >= {
        ("SEVERAL_STARTS", "two"),
        ("UNREACHABLE_COMPONENT", "alone"),
        ("MISSING_PORT", "alone"),
        ("INVALID_EXPRESSION", "bad"),
        ("TYPE_MISMATCH", "wait"),
        ("UNKNOWN_COMPONENT_TYPE", "what"),
        ("INVALID_POLICY", "sure"),
        ("UNKNOWN_PORT", "bad"),
        ("UNKNOWN_PORT", "start"),
        ("DANGLING_CONNECTION", ""),
    }  # fmt: skip
    warned = {p.component_id for p in answer.problems if p.severity == 2}
    assert warned == {"alone"}
    assert all(problem.path for problem in answer.problems)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("while True:\n    pass", "SCRIPT_TIMEOUT"),
        ("x = 'a'\nwhile True:\n    x = x + x", "SCRIPT_MEMORY"),
        ("x = [0] * 10 ** 10", "SCRIPT_MEMORY"),
        ("def f():\n    return f()\nf()", "SCRIPT_RECURSION"),
        ("import os\nos.system('true')", "SCRIPT_ERROR"),
        ("open('/etc/passwd').read()", "SCRIPT_ERROR"),
    ],
)
async def test_a_runaway_script_is_a_component_error(tmp_path, source: str, reason: str) -> None:
    async with (
        served(tmp_path / "data", code_seconds=0.3 if reason == "SCRIPT_TIMEOUT" else DEADLINE_SECONDS) as server,
        connected(server.address, server.admin_key) as api,
    ):
        ended = await run(api, await api.session(flows.code(source)))
    assert ended.state == execution_pb2.EXECUTION_STATE_FAILED
    assert ended.failure.reason == reason, ended.failure


async def test_runaways_do_not_keep_others_from_finishing(tmp_path) -> None:
    """While many scripts without an end are at work, as many short ones come and go."""
    async with (
        served(tmp_path / "data", code_seconds=0.5) as server,
        connected(server.address, server.admin_key) as api,
    ):
        session_id = await api.session(flows.code("while True:\n    pass"))
        runaways = [await start(api, session_id) for _ in range(MANY)]
        await api.put(flows.code("set_data_output('result', 1)"), alias="short-one")
        still = 0
        for number in range(MANY):
            ended = await run(api, session_id, definition="short-one")
            assert ended.state == execution_pb2.EXECUTION_STATE_COMPLETED
            if number == 0:
                running = execution_pb2.EXECUTION_STATE_RUNNING
                listing = execution_pb2.ListExecutionsRequest(
                    blob="acme/pipeline", session=session_id, state=running, page_size=1000
                )
                still = len((await api.executions.ListExecutions(listing)).executions)
        assert still, "the runaways were over before the others; the test does not test what it says"
        for item in runaways:
            ended = await wait_for_state(api, item.id, execution_pb2.EXECUTION_STATE_FAILED)
            assert ended.failure.reason == "SCRIPT_TIMEOUT"


@pytest.mark.either_database
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
async def test_numbers_that_json_cannot_say_are_refused(api: Api, number: float) -> None:
    session_id = await api.session(flows.code("pass"))
    value = Value(number_value=number)
    given = execution_pb2.ExecutionInput(alias="given", value=value)
    await expect_refusal(start(api, session_id, input_data=[given]), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE")
    put = session_object_pb2.PutSessionObjectRequest(session=session_id, alias="a", value=value)
    await expect_refusal(api.session_objects.PutSessionObject(put), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE")
    typed = definition_pb2.WorkflowDefinition(type="workflow_definition")
    typed.components.add(id="a", type="flow.end").ports.add(category="data_input", route="value", value=value)
    request = definition_pb2.PutDefinitionRequest(revision="acme/pipeline@draft", alias="workflow", content=typed)
    await expect_refusal(api.definitions.PutDefinition(request), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_DEFINITION")


async def test_a_start_whose_caller_goes_away_is_not_left_half_done(api: Api) -> None:
    """Calls are cancelled at random moments; whatever was started all the same reaches its end."""
    seed = random.Random(11)
    session_id = await api.session(flows.code("set_data_output('result', 1)"))

    async def start_and_leave() -> None:
        request = execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"})
        call = api.executions.StartExecution(request)
        await asyncio.sleep(seed.uniform(0, 0.3))
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await call

    async def started_all_the_same() -> list[execution_pb2.Execution]:
        for _ in range(scaled(10, least=3)):
            await asyncio.gather(*(start_and_leave() for _ in range(10)))
        listed = await ask(api, "ListExecutions", blob="acme/pipeline", session=session_id, page_size=1000)
        return list(listed.executions)

    for item in await until(started_all_the_same):
        await wait_for_state(api, item.id, execution_pb2.EXECUTION_STATE_COMPLETED)
