"""Nothing that was stored is too large to read: every watch and every list delivers all of it, in messages that fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import acme
import flows
import grpc
import pytest
from acme import DRAFT
from blobhub.v1 import definition_pb2, execution_pb2, metadata_pb2, session_pb2
from blobhub_client import get_value, page
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from blobhub_server.db.opening import open_database
from blobhub_server.db.portion import MAX_BATCH_BYTES, MAX_PAGE_BYTES, count_within
from blobhub_server.workflow.store import event as event_store
from blobhub_server.workflow.store import execution as execution_store
from calling import ask
from exact import INVALID, constant_of, flow, given_to, passing, same
from google.protobuf.json_format import ParseDict
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st
from served import Api, connected, served

EVENTS = 320
"""So many of 9 KiB each are more than a message, and fewer than a batch has by count."""
TALK = f"for i in range({EVENTS}):\n    emit_output('y' * 9216)\nfor i in range(1):\n    emit_output('z' * 1000000)"
LARGE = "x" * 900_000
EXECUTIONS = 9


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 200))
def test_a_portion_ends_with_the_record_that_fills_it(sizes: list[int], most: int) -> None:
    count = count_within(sizes, most)
    assert sum(sizes[: count - 1]) < most if count else not sizes
    assert count == len(sizes) or sum(sizes[:count]) >= most


async def finish(api: Api, session_id: str, **fields: Any) -> list[execution_pb2.RunExecutionResponse]:
    """The messages of an execution that is run to its end."""
    spec = {"definition": "workflow", **fields}
    call = api.executions.RunExecution(execution_pb2.RunExecutionRequest(session=session_id, spec=spec))
    return [message async for message in call]


def violation(error: grpc.aio.AioRpcError) -> str:
    """The one thing that is wrong with a request."""
    bad = error_details_pb2.BadRequest()
    assert unpack(error, bad)
    (found,) = bad.field_violations
    return found.description


def of(messages: list[Any]) -> list[Any]:
    """The events of the messages of a watch, each of which is cut as soon as it is full."""
    for message in messages:
        assert sum(event.ByteSize() for event in message.events[:-1]) < MAX_BATCH_BYTES
    return [event for message in messages for event in message.events]


async def test_every_way_to_read_a_log_of_large_events_delivers_all_of_it(api: Api) -> None:
    session_id = await api.session(flows.code(TALK))
    runs = [of(await finish(api, session_id)) for _ in range(2)]
    request = session_pb2.WatchSessionRequest(session=session_id, replay_only=True)
    log = of([message async for message in api.sessions.WatchSession(request)])
    assert [event.session_sequence for event in log] == list(range(1, len(log) + 1))
    assert len(log) > 2 * EVENTS
    for seen in runs:
        assert [event.execution_sequence for event in seen] == list(range(1, len(seen) + 1))
        execution_id = seen[0].execution_id
        assert seen == [event for event in log if event.execution_id == execution_id]
        watch = execution_pb2.WatchExecutionRequest(execution=execution_id)
        assert of([message async for message in api.executions.WatchExecution(watch)]) == seen
    for order_by, expected in (("", log), ("session_sequence desc", log[::-1])):
        listing = session_pb2.ListEventsRequest(session=session_id, page_size=1000, order_by=order_by)
        assert [event async for event in page(api.sessions.ListEvents, listing)] == expected
    outputs = session_pb2.ListEventsRequest(session=session_id, page_size=1000, types=["processor.output"])
    listed = [event async for event in page(api.sessions.ListEvents, outputs)]
    assert listed == [event for event in log if event.type == "processor.output"]


async def test_a_live_watch_gets_large_events_as_they_come(api: Api) -> None:
    session_id = await api.session(flows.code(TALK))
    call = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id))
    seen: list[Any] = []
    for _ in range(2):
        await finish(api, session_id)
    await api.sessions.CloseSession(session_pb2.CloseSessionRequest(session=session_id))
    async for message in call:
        seen += of([message])
    assert [event.session_sequence for event in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].type == "session_closed"


@pytest.mark.either_database
@pytest.mark.parametrize("page_size", [0, 3, 1000])
@pytest.mark.parametrize("only", [{}, {"state": execution_pb2.EXECUTION_STATE_COMPLETED}, {"session": True}])
async def test_a_list_of_executions_with_large_results_delivers_all(api: Api, page_size: int, only: dict[str, Any]) -> None:
    session_id = await api.session(passing())
    ended = []
    for number in range(EXECUTIONS):
        value = LARGE if number % 3 else number
        messages = await finish(api, session_id, input_data=[given_to(value, text=False)])
        ended.append(messages[-1].execution)
        assert get_value(ended[-1], "result") == value
    for order_by, expected in (("", ended[::-1]), ("create_time", ended)):
        chosen = only | ({"session": session_id} if "session" in only else {})
        request = execution_pb2.ListExecutionsRequest(blob="acme/pipeline", page_size=page_size, order_by=order_by, **chosen)
        seen, pages = [], 0
        while not pages or request.page_token:
            answer = await api.executions.ListExecutions(request)
            assert answer.executions
            assert sum(execution.ByteSize() for execution in answer.executions[:-1]) < MAX_PAGE_BYTES
            seen += answer.executions
            pages += 1
            request.page_token = answer.next_page_token
        assert pages > 1
        assert seen == expected


async def test_reads_of_large_records_take_no_more_than_they_send(tmp_path: Path, database_url: str) -> None:
    async with (
        served(tmp_path / "data", database_url) as server,
        connected(server.address, server.admin_key) as api,
    ):
        session_id = await api.session(flows.code(TALK))
        await finish(api, session_id)
        await api.put(passing(), alias="passing")
        for _ in range(5):
            await finish(api, session_id, definition="passing", input_data=[given_to(LARGE, text=False)])
        log = [event async for event in page(api.sessions.ListEvents, session_pb2.ListEventsRequest(session=session_id))]
        blob_id = (await ask(api, "GetBlob", blob="acme/pipeline")).blob.id
    before = next(event for event in log if event.ByteSize() > MAX_BATCH_BYTES).session_sequence - 1
    order = {"order_by": "create_time desc", "after": "", "limit": 1001}
    db = await open_database(server.settings.url)
    try:
        async with db.read() as tx:
            lines = await event_store.page_of_session(tx, session_id, 0, limit=512, max_bytes=MAX_BATCH_BYTES)
            sizes = [len(line.event) for line in lines]
            assert sum(sizes[:-1]) < MAX_BATCH_BYTES <= sum(sizes)
            lines = await event_store.page_of_session(tx, session_id, before, limit=512, max_bytes=MAX_BATCH_BYTES)
            assert len(lines) == 1
            everything = execution_store.Filter()
            found, more = await execution_store.page(tx, blob_id, everything, max_bytes=MAX_PAGE_BYTES, **order)
    finally:
        await db.close()
    assert len(found) == MAX_PAGE_BYTES // len(LARGE) + 1
    assert more == execution_store.order("create_time desc").key(found[-1])


async def test_lists_of_large_metadata_deliver_all(api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    keys = [f"k{number:03}" for number in range(80)]
    for key in keys:
        await ask(api, "CreateMetadata", parent="acme/pipeline", key=key, value_json=json.dumps("m" * 65_000))
    listing = metadata_pb2.ListMetadataRequest(parent="acme/pipeline", page_size=1000)
    assert [record.key async for record in page(api.metadata.ListMetadata, listing)] == keys
    resolve = metadata_pb2.ResolveMetadataRequest(revision=DRAFT, page_size=1000)
    assert [found.record.key async for found in page(api.metadata.ResolveMetadata, resolve)] == keys


LARGEST = {
    "one long text": "x" * ((1 << 20) - 2),
    "a text that JSON has six bytes for each character of": "\0" * (((1 << 20) - 2) // 6),
    "many items in both forms": [2**63 - 1, *[0] * 4_000, "x" * 150_000],
    "as many items as Values have": [*[0] * 4_090, "x" * 1_000_000],
    "many objects": [{"": 0}] * 2_048,
    "more items than Values have": [*[0] * 4_200, "x" * 1_000_000],
    "as many items as there may be": [{"": {}, "x" * 200: 1.5e300}] * 3_333 + [{}],
    "deep": json.loads('{"a":' * 24 + json.dumps("x" * ((1 << 20) - 200)) + "}" * 24),
}


@pytest.mark.either_database
@pytest.mark.parametrize("value", LARGEST.values(), ids=LARGEST)
async def test_whatever_any_way_in_accepts_every_way_out_delivers(api: Api, value: Any) -> None:
    session_id = await api.session(passing())
    given = execution_pb2.ExecutionInput(
        alias="given", value_json=json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    )
    await ask(api, "PutSessionObject", session=session_id, alias="read", value_json=given.value_json)
    assert same(value, get_value((await ask(api, "GetSessionObject", session=session_id, alias="read")).session_object))
    for _ in range(3):
        passed = await finish(api, session_id, input_data=[given])
        execution = passed[-1].execution
        assert same(value, get_value(execution, "result"))
        (exited,) = [event.flow_exited for event in of(passed) if event.type == "flow.exited"]
        assert same(value, get_value(exited, "result"))
        found = (await ask(api, "GetExecution", execution=execution.id)).execution
        assert same(value, get_value(found, "result"))
        assert same(value, get_value(found.input_data[0]))
    listing = execution_pb2.ListExecutionsRequest(blob="acme/pipeline")
    listed = [execution async for execution in page(api.executions.ListExecutions, listing)]
    assert sum(same(value, get_value(execution, "result")) for execution in listed) == 3
    watch = session_pb2.WatchSessionRequest(session=session_id, replay_only=True)
    log = of([message async for message in api.sessions.WatchSession(watch)])
    assert [event.session_sequence for event in log] == list(range(1, len(log) + 1))
    assert [event async for event in page(api.sessions.ListEvents, session_pb2.ListEventsRequest(session=session_id))] == log


@pytest.mark.either_database
async def test_the_values_of_a_definition_are_bounded_as_they_are_told_not_as_they_are_spelled(api: Api) -> None:
    session_id = await api.session(json.dumps(flow(None)))
    numbers = "[" + ",".join(["1e15"] * 4_500) + f',"{"x" * 450_000}"]'
    kept = [flows.value(f"v{number}", f"v{number}", value="HERE") for number in range(2)]
    parts = [flows.component("start", "flow.start"), flows.component("end", "flow.end"), *kept]
    document = flows.document(parts, [flows.control("start", "end")])
    error = await expect_refusal(api.put(document.replace('"HERE"', numbers)), INVALID, "INVALID_DEFINITION")
    assert "1048576 bytes as JSON in all" in violation(error)
    await api.put(document.replace('"HERE"', numbers, 1), alias="one")
    answer = await ask(api, "GetDefinition", definition=f"{DRAFT}/one")
    assert len(answer.content.components) == 4
    many = document.replace('"HERE"', json.dumps([0] * 5_001))
    assert "10000 items in lists and objects in all, not 10002" in violation(
        await expect_refusal(api.put(many), INVALID, "INVALID_DEFINITION")
    )
    assert session_id


@pytest.mark.either_database
@pytest.mark.parametrize(("items", "size", "fits"), [(9_000, 100, True), (9_000, 900_000, True), (0, (1 << 20) - 4, False)])
async def test_a_typed_definition_is_stored_as_a_document_within_its_bounds(
    api: Api, items: int, size: int, fits: bool
) -> None:
    await api.session(json.dumps(flow(None)))
    content = ParseDict(flow(None), definition_pb2.WorkflowDefinition())
    value = [*[0] * items, "x" * size]
    constant_of(content).value_json = json.dumps(value, separators=(",", ":"))
    put = ask(api, "PutDefinition", revision=DRAFT, alias="typed", content=content)
    if not fits:
        error = await expect_refusal(put, INVALID, "INVALID_DEFINITION")
        assert "1048576 bytes as a JSON document" in violation(error)
        return
    await put
    answer = await ask(api, "GetDefinition", definition=f"{DRAFT}/typed")
    assert len(answer.document.encode()) <= 1 << 20
    assert same(value, get_value(constant_of(answer.content)))


@pytest.mark.either_database
async def test_a_definition_with_very_many_problems_is_checked_all_the_same(api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    ports = [{"category": "data_input", "route": f"{number}"} for number in range(250)]
    parts = [{"id": f"part-{number}-" * 28, "type": "flow.end", "ports": ports} for number in range(39)]
    answer = await ask(api, "CheckDefinition", revision=DRAFT, document=flows.document(parts, []))
    assert not answer.runnable
    assert answer.ByteSize() > MAX_PAGE_BYTES


@pytest.mark.either_database
async def test_a_script_whose_route_is_no_name_fails_with_a_reason(api: Api) -> None:
    session_id = await api.session(flows.code("set_result('r' * 5000000)"))
    ended = (await finish(api, session_id))[-1].execution
    assert ended.failure.reason == "INVALID_OUTPUT"
    assert "at most 256 characters" in ended.failure.message
