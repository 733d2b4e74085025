"""Signals to executions over the wire: what waits goes on, what is early is kept, and each is taken once."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import flows
import grpc
import pytest
from blobhub.v1 import execution_pb2, session_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.workflow.rules import message
from calling import ask
from databases import select
from golden_events import golden, lines, shown
from scale import scaled
from served import Api, ServerProcess, connected
from several_servers import ended, started, state_of, together
from signals import waits
from waiting import until

FEW = 5


async def signal(api: Api, execution_id: str, key: str = "", value: Any = None, **more: str) -> None:
    fields = {"name": "go", "key": key, "value_json": json.dumps(value)} | more
    await api.executions.SignalExecution(execution_pb2.SignalExecutionRequest(execution=execution_id, **fields))


async def result(api: Api, execution_id: str) -> Any:
    """The result of an execution, once it has ended."""
    await ended(api, execution_id)
    execution = (await ask(api, "GetExecution", execution=execution_id)).execution
    assert not execution.HasField("failure"), execution.failure
    return execution.result.string_value or [*map(int, execution.result.list_value)]


async def waiting(api: Api, execution_id: str) -> None:
    """Return when an execution waits."""

    async def waits_now() -> bool:
        return await state_of(api, execution_id) == "WAITING"

    await until(waits_now)


async def test_the_events_of_signals_in_time_and_before(api: Api) -> None:
    """As a watcher reads them: `golden/signalled_events.jsonl`."""
    session_id = await api.session(waits(("first", "7"), ("go", "a"), ("go", "b"), timeout=3600))
    execution_id = await started(api, session_id)
    await signal(api, execution_id, "b", 3)
    await signal(api, execution_id, "a", 2)
    await signal(api, execution_id, "7", 1, name="first")
    assert await result(api, execution_id) == [1, 2, 3]
    request = session_pb2.WatchSessionRequest(session=session_id, replay_only=True)
    events = [event async for batch in api.sessions.WatchSession(request) for event in batch.events]
    told = lines(shown(event) for event in events)
    assert told == golden("signalled_events.jsonl"), "\n".join(told)
    only = await ask(api, "ListEvents", session=session_id, types=["flow.signalled"])
    assert [event.flow_signalled.signal.key for event in only.events] == ["b", "a"]


async def test_a_signal_that_does_not_come_in_time_takes_the_route_of_its_time(api: Api) -> None:
    execution_id = await started(api, await api.session(waits(("go", ""), timeout=0.01)))
    assert await result(api, execution_id) == "too late"


async def test_a_signal_that_is_sent_again_is_one(api: Api) -> None:
    execution_id = await started(api, await api.session(waits(("go", ""), ("go", ""))))
    request_id = str(uuid.uuid4())
    await asyncio.gather(*(signal(api, execution_id, value=1, request_id=request_id) for _ in range(5)))
    await signal(api, execution_id, value=2)
    assert await result(api, execution_id) == [1, 2]


async def test_signals_to_what_has_ended_or_is_stopping_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    execution_id = await started(api, await api.session(waits(("go", ""))))
    await ask(api, "StopExecution", execution=execution_id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await signal(api, execution_id)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert refused.value.details() in ("the execution is stopping", "the execution was stopped")
    await ended(api, execution_id)
    await expect_refusal(signal(api, execution_id), grpc.StatusCode.FAILED_PRECONDITION, "EXECUTION_ENDED")


@pytest.mark.parametrize(
    ("field", "text"), [("name", ""), ("name", "x" * 257), ("name", "a\nb"), ("key", "\0"), ("key", "x" * 257)]
)
async def test_a_name_or_key_that_none_can_have_is_refused(api: Api, field: str, text: str) -> None:
    asked = ask(api, "SignalExecution", **{"execution": str(uuid.uuid4()), "name": "go"} | {field: text})
    await expect_refusal(asked, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


@pytest.mark.parametrize(("value", "name"), [(1, "execution.signals"), ("x" * 1_000_000, "execution.signal_bytes")])
async def test_what_an_execution_keeps_is_bounded_and_has_room_again_once_it_is_taken(
    api: Api, monkeypatch: pytest.MonkeyPatch, value: Any, name: str
) -> None:
    monkeypatch.setattr(message, "MAX_SIGNALS", FEW)
    kept = FEW if value == 1 else message.MAX_BYTES // 1_000_000
    execution_id = await started(api, await api.session(waits(("first", ""), *[("go", "")] * kept, ("last", ""))))
    for _ in range(kept):
        await signal(api, execution_id, value=value)
    await until(lambda: _kept(api, execution_id, kept))
    with pytest.raises(grpc.aio.AioRpcError, match=name):
        await signal(api, execution_id, value=value)
    await ask(api, "StopExecution", execution=execution_id)
    await ended(api, execution_id)


async def _kept(api: Api, execution_id: str, count: int) -> bool:
    """Whether an execution keeps so many signals."""
    session_id = (await ask(api, "GetExecution", execution=execution_id)).execution.session_id
    events = await ask(api, "ListEvents", session=session_id, types=["flow.signalled"])
    return len(events.events) == count


async def test_there_is_room_again_for_what_was_taken(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message, "MAX_SIGNALS", 2)
    execution_id = await started(api, await api.session(waits(("first", ""), *[("go", "")] * 4)))
    for value in (1, 2):
        await signal(api, execution_id, value=value)
    await until(lambda: _kept(api, execution_id, 2))
    await expect_refusal(signal(api, execution_id, value=3), grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")

    async def has_room() -> bool:
        try:
            await signal(api, execution_id, value=3)
        except grpc.aio.AioRpcError as error:
            return error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED
        return True

    assert not await has_room(), "the two that are kept, and none waits for the first"
    monkeypatch.setattr(message, "MAX_SIGNALS", 3)
    await signal(api, execution_id, value=0, name="first")
    monkeypatch.setattr(message, "MAX_SIGNALS", 2)
    await until(has_room)
    await signal(api, execution_id, value=4)
    assert await result(api, execution_id) == [0, 1, 2, 3, 4]


async def test_signals_through_every_server_at_once_are_each_taken_once(tmp_path: Path, database_url: str) -> None:
    """Some before the step waits for them, and some after."""
    count = scaled(200, least=20)
    async with together(tmp_path, database_url) as found:
        _, api = found[0]
        execution_id = await started(api, await api.session(waits(*[("go", str(number % 4)) for number in range(count)])))
        clients = [client for _, client in found]
        await asyncio.gather(
            *(signal(clients[number % len(clients)], execution_id, str(number % 4), number) for number in range(count))
        )
        assert sorted(await result(api, execution_id)) == [*range(count)]
        assert await select(database_url, "SELECT signals, signal_bytes FROM executions") == [(0, 0)]
        assert await select(database_url, "SELECT * FROM messages") == []


async def test_what_is_kept_outlives_a_kill(tmp_path: Path, database_url: str) -> None:
    server = ServerProcess(tmp_path / "data", database_url)
    await server.start()
    try:
        key = server.admin_key
        async with connected(server.address, key) as api:
            execution_id = await started(api, await api.session(waits(("first", ""), ("go", ""), ("go", ""))))
            for value in (1, 2):
                await signal(api, execution_id, value=value)
        server.kill()
        await server.start()
        async with connected(server.address, key) as api:
            await signal(api, execution_id, value=0, name="first")
            assert await result(api, execution_id) == [0, 1, 2]
    finally:
        server.kill()


async def test_an_instant_is_waited_for(api: Api) -> None:
    """It comes as an input; one that has passed is not waited for."""
    document = flows.document(
        [
            flows.component("start", "flow.start"),
            flows.value("when", "when", persistence="execution"),
            flows.component("wait", "flow.delay"),
            flows.component("end", "flow.end", value="later"),
        ],
        [flows.control("start", "wait"), flows.control("wait", "end"), flows.data("when", "value", "wait", "until")],
    )
    session_id = await api.session(document)
    spec = {"definition": "workflow", "input_data": [{"alias": "when", "value_json": '"2001-02-03T04:05:06.7-08:00"'}]}
    answer = await ask(api, "RunExecution", session=session_id, spec=spec)
    assert answer.execution.result.string_value == "later"
    spec["input_data"][0]["value_json"] = '"2901-02-03T04:05:06.7-08:00"'
    far = (await ask(api, "StartExecution", session=session_id, spec=spec)).execution.id
    await waiting(api, far)
    (event,) = (await ask(api, "ListEvents", session=session_id, types=["processor.waiting"])).events
    assert event.processor_waiting.wake_time.ToDatetime().isoformat() == "2901-02-03T12:05:06.700000"
    await ask(api, "StopExecution", execution=far)
