"""However many fields a request has, nobody waits for it: too many are refused before anything is made of them."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import flows
import grpc
import pytest
from acme import DRAFT
from blobhub.v1 import caller_pb2, definition_pb2, execution_pb2, model_pb2
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.errors import InvalidRequest
from blobhub_server.rpc.validation import validate
from blobhub_server.rpc.value_bound import MAX_FIELDS, MAX_WEIGHED_FIELDS, bound_check, weigher
from calling import METHODS, ask
from hostile.wire import field, message
from meter import MeteredServer, hold_the_bound
from protovalidate import Validator
from served import Api, connected

LARGEST = definition_pb2.WorkflowDefinition(
    type="workflow_definition",
    version="1.0.1",
    components=[
        {
            "id": f"c{number}",
            "type": "flow.end",
            "ports": [{"category": "data_input", "route": f"p{port}"} for port in range(4)],
        }
        for number in range(2_000)
    ],
    connections=[
        {"id": f"{number}", "source_id": "c0", "target_id": "c1", "source_port": "flow_output", "target_port": "flow_input"}
        for number in range(6_000)
    ],
)
"""A definition of about as many parts as there is room for."""

CROWDED = {
    "components": field(4, field(3, b"") * 1_400_000),
    "connections": field(4, field(4, b"") * 2_000_000),
    "ports": field(4, field(3, field(6, b"") * 2_000_000)),
    "fields that nobody knows": field(99, 1) * 1_000_000,
    "fields that nobody knows, further in": field(4, field(3, field(99, 1) * 1_000) * 1_300),
    "texts": field(4, field(3, field(7, field(2, field(5, b"") * 2_000_000)))),
}


@pytest.mark.parametrize("crowd", CROWDED.values(), ids=CROWDED)
def test_a_message_of_too_many_fields_is_known_by_its_bytes(crowd: bytes) -> None:
    assert bound_check(definition_pb2.PutDefinitionRequest())(crowd)


@pytest.mark.parametrize("more", [0, 1])
def test_a_request_has_as_many_fields_as_it_may(more: int) -> None:
    crowd = field(99, 1) * (MAX_FIELDS + more)
    assert bound_check(caller_pb2.GetCallerRequest())(crowd) == bool(more)


CHUNK = field(8, bytes(1 << 20))


@pytest.mark.parametrize(
    ("data", "weight"),
    [
        (CHUNK, 4),
        (field(1, b"acme/scorer") + field(3, 5) + CHUNK, 19),
        (field(1, bytes(1 << 19)) + CHUNK, (1 << 19) + 8),
        (field(9, 1) * MAX_WEIGHED_FIELDS + CHUNK, 2 * MAX_WEIGHED_FIELDS + len(CHUNK)),
        (field(8, bytes(2 << 20)), (2 << 20) + 5),
        (CHUNK[:-1], len(CHUNK) - 1),
        (CHUNK + b"\x80", len(CHUNK) + 1),
        (b"", 0),
    ],
    ids=["alone", "with others", "a large text", "many fields", "a large one", "cut short", "broken", "nothing"],
)
def test_bytes_that_are_taken_as_they_are_weigh_nothing(data: bytes, weight: int) -> None:
    assert weigher(model_pb2.UploadModelRequest())(data) == weight
    assert weigher(model_pb2.GetModelRequest())(data) == len(data)


@pytest.mark.parametrize("length", [0, 1, 4096, 4097, 1 << 20, (1 << 20) + 1])
@pytest.mark.parametrize("others", [{}, {"revision": DRAFT}, {"size": 5}, {"sha256": "?"}], ids=str)
def test_long_bytes_are_judged_as_they_would_be_as_a_whole(length: int, others: dict[str, Any]) -> None:
    request = model_pb2.UploadModelRequest(chunk=bytes(length), **others)
    as_a_whole = Validator().collect_violations(request)
    with pytest.raises(InvalidRequest) if as_a_whole else nullcontext() as refused:
        validate(request)
    assert len(refused.value.violations if refused else []) == len(as_a_whole)
    assert len(request.chunk) == length


def test_what_has_no_constraints_is_not_gone_through_and_stays_set_for_those_around_it() -> None:
    request = definition_pb2.CheckDefinitionRequest(revision=DRAFT, content=LARGEST)
    validate(request)
    assert request.content == LARGEST


async def send_largest(api: Api) -> None:
    """Put and check a definition of as many parts as there is room for."""
    await ask(api, "PutDefinition", revision=DRAFT, alias="largest", content=LARGEST)
    await ask(api, "CheckDefinition", revision=DRAFT, content=LARGEST)


async def send_crowded(api: Api) -> None:
    """Send requests of too many fields, each of which is refused in words."""
    for method in ("PutDefinition", "CheckDefinition"):
        for crowd in CROWDED.values():
            data = message(method, revision=DRAFT) + crowd
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await api.channel.unary_unary(METHODS[method].path)(data)
            assert reason_of(raised.value) == "INVALID_REQUEST"
            assert f"may have {MAX_FIELDS} fields" in (raised.value.details() or "")
    inputs = execution_pb2.StartExecutionRequest(session="acme/pipeline@draft/s").SerializeToString()
    spec = field(2, field(1, b"workflow") + field(2, b"") * 1_000_000)
    with pytest.raises(grpc.aio.AioRpcError, match="fields"):
        await api.channel.unary_unary(METHODS["StartExecution"].path)(inputs + spec)


async def test_requests_of_very_many_fields_hold_nobody_up_and_are_refused_in_words(tmp_path: Path) -> None:
    server = MeteredServer(tmp_path / "data")
    async with server.running(), connected(server.address, server.admin_key) as api:
        await api.session(flows.steps())
        await send_largest(api)
        await hold_the_bound(partial(server.measure, partial(send_largest, api)))
        await hold_the_bound(partial(server.measure, partial(send_crowded, api)))
