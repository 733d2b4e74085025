"""However many items a value has, whichever way it comes in or goes out, nobody waits for it."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import flows
import pytest
from acme import DRAFT
from blobhub.v1 import execution_pb2, metadata_pb2, session_object_pb2, session_pb2
from blobhub_client import get_value, page, set_value
from blobhub_client import values as client_values
from blobhub_server.blobtypes import json_text
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.rpc.value_bound import MAX_MESSAGE_ITEMS, bound_check
from calling import ask
from exact import INVALID, nested, passing, same, values
from google.protobuf.descriptor import Descriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.unknown_fields import UnknownFieldSet
from hostile.wire import field
from hypothesis import given
from hypothesis import strategies as st
from meter import MeteredServer, hold_the_bound
from served import Api, connected

NULLS = 950_000
GROUP_OF_NOTHING = b"\xa3\x06\xa4\x06"
PUT = session_object_pb2.PutSessionObjectRequest
BYTES, GROUP = 2, 3
"""Wire types."""
PARTS = st.one_of(
    st.binary(max_size=12),
    values.map(lambda value: PUT(value=filled(value)).SerializeToString()),
    st.sampled_from([field(3, field(6, field(1, b""))), field(3, field(5, field(1, b""))), field(99, 1), GROUP_OF_NOTHING]),
)
"""What a request is made of, more or less."""


def filled(value: Any) -> Value:
    """A value as a Value."""
    made = PUT()
    set_value(made, value)
    return made.value if not made.value_json else Value(string_value=made.value_json)


def items_of(value: Value) -> int:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return len(value.struct_value.fields) + sum(map(items_of, value.struct_value.fields.values()))
    if kind == "list_value":
        return len(value.list_value.values) + sum(map(items_of, value.list_value.values))
    return 0


@given(values=st.lists(values, max_size=5), repeat=st.integers(1, 4000))
def test_the_items_of_a_request_are_counted_in_its_bytes(values: list[Any], repeat: int) -> None:
    request = execution_pb2.StartExecutionRequest(session="s")
    for number, value in enumerate(values):
        request.spec.input_data.add(alias=str(number), value=filled([value] * (repeat if number == 0 else 1)))
    found = sum(items_of(item.value) for item in request.spec.input_data)
    assert bound_check(request)(request.SerializeToString()) == (found > MAX_MESSAGE_ITEMS)


def test_the_client_puts_as_many_items_into_values_as_the_server_takes() -> None:
    assert client_values.MAX_MESSAGE_ITEMS == MAX_MESSAGE_ITEMS


def items_in(data: bytes, kind: Descriptor) -> float:
    """How many items there are in the bytes of a message, as protobuf's own decoder finds them; a group has any number."""
    inner = {one.number: one.message_type for one in kind.fields if one.message_type}
    found = 0.0
    for one in UnknownFieldSet(Empty.FromString(data)):
        if one.wire_type == GROUP:
            return math.inf
        if one.wire_type == BYTES and one.field_number in inner:
            found += kind.name in ("Struct", "ListValue")
            found += items_in(one.data, inner[one.field_number])
    return found


@given(parts=st.lists(PARTS, max_size=6), times=st.integers(1, 2000))
def test_the_items_of_bytes_that_parse_are_as_many_as_the_decoder_finds(parts: list[bytes], times: int) -> None:
    data = b"".join(parts) * times
    exceeds = bound_check(PUT())(data)
    try:
        PUT.FromString(data)
    except DecodeError:
        return  # Bytes that are no request are the decoder's to refuse, whatever has been counted in them.
    assert exceeds == (len(data) > 2 * MAX_MESSAGE_ITEMS and items_in(data, PUT.DESCRIPTOR) > MAX_MESSAGE_ITEMS)


@pytest.mark.parametrize("more", [0, 1])
def test_a_request_has_as_many_items_as_it_may(more: int) -> None:
    request = PUT(value=filled(None))
    request.value.list_value.values.extend([Value()] * (MAX_MESSAGE_ITEMS + more))
    assert bound_check(PUT())(request.SerializeToString()) == bool(more)
    # A field that is there twice is merged, as is a tag of more bytes than it needs; a group may hold anything.
    half = PUT(value=Value(list_value=ListValue(values=[Value()] * (MAX_MESSAGE_ITEMS // 2)))).SerializeToString()
    assert bound_check(PUT())(half + half) is False
    assert bound_check(PUT())(half + half + half) is True
    spaced = b"\x9a\x00" + bytes(half[1:])
    assert PUT.FromString(spaced) == PUT.FromString(half)
    assert bound_check(PUT())(spaced * 3) is True
    assert bound_check(PUT())(GROUP_OF_NOTHING * MAX_MESSAGE_ITEMS) is True


@pytest.fixture
async def metered(tmp_path: Path) -> AsyncIterator[tuple[MeteredServer, Api, str]]:
    """A server that is metered, with a session of a workflow that passes on what it is given, each call made once before."""
    server = MeteredServer(tmp_path / "data", code_seconds=2)
    async with server.running(), connected(server.address, server.admin_key) as api:
        session_id = await api.session(passing())
        await api.put(flows.code("set_data_output('result', [[i] for i in range(4990)])"), alias="script")
        await read_everything(api, session_id, {"value_json": json.dumps([1] * 9_000)})
        server.reset()
        yield server, api, session_id


async def read_everything(api: Api, session_id: str, form: dict[str, Any]) -> None:
    """Put a value in every way, and read it in every way."""
    put = await ask(api, "PutSessionObject", session=session_id, alias="read", **form)
    await ask(api, "GetSessionObject", session=session_id, alias=put.session_object.alias)
    spec = {"definition": "workflow", "input_data": [{"alias": "given", **form}]}
    ended = (await ask(api, "RunExecution", session=session_id, spec=spec)).execution
    await ask(api, "GetExecution", execution=ended.id)
    await ask(api, "RunExecution", session=session_id, spec={"definition": "script"})
    listing = execution_pb2.ListExecutionsRequest(blob="acme/pipeline", page_size=1000)
    assert [one async for one in page(api.executions.ListExecutions, listing)]
    events = session_pb2.ListEventsRequest(session=session_id, page_size=1000)
    assert [one async for one in page(api.sessions.ListEvents, events)]


FORMS = {
    "small numbers": [0] * json_text.MAX_VALUE_ITEMS,
    "long numbers": [2**63 - 1] * json_text.MAX_VALUE_ITEMS,
    "floats": [1e15 + number / 8 for number in range(json_text.MAX_VALUE_ITEMS)],
    "lists": [[]] * json_text.MAX_VALUE_ITEMS,
    "pairs": [[0]] * (json_text.MAX_VALUE_ITEMS // 2),
    "objects": [{"k": {}}] * (json_text.MAX_VALUE_ITEMS // 2),
    "objects in objects": [nested(22, 0, objects=True)] * (json_text.MAX_VALUE_ITEMS // 23),
    "keys": {f"{number:040}": number for number in range(json_text.MAX_VALUE_ITEMS)},
    "texts": ['\\"é' * 7] * json_text.MAX_VALUE_ITEMS,
    "nothing but a text": "\0" * 170_000,
}


@pytest.mark.parametrize("value", FORMS.values(), ids=FORMS)
async def test_a_value_of_as_many_items_as_there_may_be_holds_nobody_up(
    metered: tuple[MeteredServer, Api, str], value: Any
) -> None:
    server, api, session_id = metered
    form = {"value_json": json.dumps(value, ensure_ascii=False, separators=(",", ":"))}

    async def read_thrice() -> None:
        for _ in range(3):
            await read_everything(api, session_id, form)

    reading = await hold_the_bound(partial(server.measure, read_thrice))
    print(*reading.beyond(10), sep="\n")
    print(f"worst callback {reading.worst_ms:.1f} ms")


async def test_many_values_that_are_emitted_at_once_hold_nobody_up_and_come_in_their_order(
    metered: tuple[MeteredServer, Api, str],
) -> None:
    server, api, session_id = metered
    emitting = "for number in range(60):\n    emit_output([number] + [[0]] * 4900)\nset_data_output('result', 1)"
    await api.put(flows.code(emitting), alias="emitting")
    numbers: list[int] = []

    async def emit() -> None:
        ended = (await ask(api, "RunExecution", session=session_id, spec={"definition": "emitting"})).execution
        listing = session_pb2.ListEventsRequest(session=session_id, execution=ended.id, types=["processor.output"])
        listing.page_size = 1000
        found = [event async for event in page(api.sessions.ListEvents, listing)]
        numbers[:] = [get_value(event.processor_output)[0] for event in found]

    await hold_the_bound(partial(server.measure, emit))
    assert numbers == [*range(60)]


async def test_a_request_of_very_many_items_is_refused_before_anything_is_made_of_it(
    metered: tuple[MeteredServer, Api, str],
) -> None:
    server, api, session_id = metered
    many = Value(list_value=ListValue(values=[Value(null_value=0)] * NULLS))
    struct = Struct(fields={str(number): Value() for number in range(100_000)})
    spec = execution_pb2.ExecutionSpec(definition="workflow", input_data=[{"alias": "given", "value": many}])
    requests = {
        "PutSessionObject": {"session": session_id, "alias": "a", "value": many},
        "StartExecution": {"session": session_id, "spec": spec},
        "RunExecution": {"session": session_id, "spec": spec},
        "CreateMetadata": {"parent": DRAFT, "key": "k", "value": many},
        "UpdateMetadata": {"parent": DRAFT, "key": "k", "value": many},
        "CreateCredential": {"parent": "acme", "alias": "a", "type": "aws", "body": struct},
    }

    async def send_all() -> None:
        for method, fields in requests.items():
            error = await expect_refusal(ask(api, method, **fields), INVALID, "INVALID_REQUEST")
            assert f"{MAX_MESSAGE_ITEMS} items in all its Values" in error.details(), method

    await hold_the_bound(partial(server.measure, send_all))


async def test_values_of_as_many_items_as_a_request_may_have_hold_nobody_up(
    metered: tuple[MeteredServer, Api, str],
) -> None:
    server, api, session_id = metered
    for value in (
        [0] * MAX_MESSAGE_ITEMS,
        [[]] * MAX_MESSAGE_ITEMS,
        [{"k": 0}] * (MAX_MESSAGE_ITEMS // 2),
        {f"{n:060}": n for n in range(MAX_MESSAGE_ITEMS)},
    ):
        made = filled(value)
        assert made.WhichOneof("kind") in ("list_value", "struct_value")
        await hold_the_bound(partial(server.measure, partial(read_everything, api, session_id, {"value": made})))
        found = (await ask(api, "GetSessionObject", session=session_id, alias="read")).session_object
        assert found.HasField("value")
        assert same(value, get_value(found))


async def test_a_page_of_many_values_has_them_all_and_holds_nobody_up(metered: tuple[MeteredServer, Api, str]) -> None:
    server, api, session_id = metered
    value = [[]] * json_text.MAX_VALUE_ITEMS
    form = {"value_json": json.dumps(value)}
    spec = {"definition": "workflow", "input_data": [{"alias": "given", **form}]}
    for _ in range(30):
        await ask(api, "RunExecution", session=session_id, spec=spec)
    for number in range(40):
        await ask(api, "CreateMetadata", parent=DRAFT, key=f"k{number}", value_json=json.dumps([[]] * 10_000))

    async def read_pages() -> None:
        listing = execution_pb2.ListExecutionsRequest(blob="acme/pipeline", page_size=1000)
        listed = [one async for one in page(api.executions.ListExecutions, listing)]
        assert sum(same(value, get_value(one, "result")) for one in listed) == 30
        keys = metadata_pb2.ListMetadataRequest(parent=DRAFT, page_size=1000)
        records = [record async for record in page(api.metadata.ListMetadata, keys)]
        assert all(same([[]] * 10_000, get_value(record)) for record in records)
        assert len(records) == 40

    await hold_the_bound(partial(server.measure, read_pages))
