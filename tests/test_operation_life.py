"""The life of an operation: it is begun by a call, runs beside it, and ends once."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from blobhub.v1 import limit_pb2
from blobhub.v1 import operation_pb2 as pb
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.errors import Overloaded, StorageUnavailable
from calling import outcome
from operations import (
    CANCELLED,
    FAILED,
    NOTES,
    PENDING,
    RUNNING,
    SUCCEEDED,
    Gate,
    begin,
    blob,
    cancel,
    capitalized,
    ended,
    gate,
    get,
    put,
    reason,
    text,
    watched,
)
from served import Api
from stranger_notes.capitals import CAPITALIZE
from waiting import until

__all__ = ["gate"]

REQUEST_ID = "8f0d6a52-27bb-4f6c-8a57-6a2f3f8d9f10"


async def test_an_operation_is_begun_by_a_call_and_ends_with_a_response(api: Api) -> None:
    await blob(api)
    begun = await begin(api)
    assert (begun.state, begun.kind, begun.sequence) == (PENDING, CAPITALIZE, 1)
    assert not begun.HasField("start_time")
    operation = await ended(api, begun.id)
    assert operation.state == SUCCEEDED, operation
    assert (operation.id, operation.blob_id, operation.revision_id) == (begun.id, begun.blob_id, begun.revision_id)
    assert (
        operation.create_time.ToNanoseconds() <= operation.start_time.ToNanoseconds() <= operation.end_time.ToNanoseconds()
    )
    assert (capitalized(operation).note, capitalized(operation).lines) == ("one", 3)
    assert await text(api) == "A\nB\nC"
    assert await get(api, begun.id) == operation


async def test_a_call_that_is_repeated_begins_nothing_anew(api: Api) -> None:
    await blob(api)
    first = await begin(api, request_id=REQUEST_ID)
    await ended(api, first.id)
    assert await begin(api, request_id=REQUEST_ID) == first
    listed = await api.operations.ListOperations(pb.ListOperationsRequest(blob=NOTES))
    assert [operation.id for operation in listed.operations] == [first.id]


async def test_a_watch_shows_an_operation_until_it_has_ended(gate: Gate, api: Api) -> None:
    await blob(api)
    begun = await begin(api)
    await gate.next()
    shown: list[pb.Operation] = []
    async for batch in api.operations.WatchOperation(pb.WatchOperationRequest(operation=begun.id)):
        shown += batch.operations
        gate.is_open.set()
    assert (shown[0].state, shown[0].progress.stage, shown[0].progress.HasField("done")) == (RUNNING, "", False)
    assert shown[-1].state == SUCCEEDED
    sequences = [item.sequence for item in shown]
    assert sequences == sorted(set(sequences))
    assert await watched(api, begun.id) == [shown[-1]] == await watched(api, begun.id, replay_only=True)
    assert await watched(api, begun.id, after=shown[-1].sequence) == []
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await watched(api, begun.id, after=shown[-1].sequence + 1)
    assert (refused.value.code(), reason_of(refused.value)) == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE")


async def test_what_a_performer_refuses_with_is_what_the_operation_fails_with(api: Api) -> None:
    await blob(api, text="")
    operation = await ended(api, (await begin(api)).id)
    assert (operation.state, reason(operation)) == (FAILED, "EMPTY_NOTE")
    assert operation.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert operation.error.message == "the note has no text"


async def test_an_error_that_nobody_foresaw_is_told_by_its_id_alone(gate: Gate, api: Api) -> None:
    await blob(api)
    gate.errors.append(RuntimeError("a secret of the machine"))
    gate.is_open.set()
    operation = await ended(api, (await begin(api)).id)
    assert (operation.state, reason(operation)) == (FAILED, "INTERNAL")
    assert b"secret" not in operation.SerializeToString()
    assert await text(api) == "a\nb\nc"


async def test_an_operation_is_tried_again_while_the_ground_is_in_trouble(gate: Gate, api: Api) -> None:
    await blob(api)
    gate.errors += [StorageUnavailable(), Overloaded()]
    gate.is_open.set()
    assert (await ended(api, (await begin(api)).id)).state == SUCCEEDED


async def test_what_the_end_cannot_write_fails_the_operation_and_undoes_all_of_it(gate: Gate, api: Api) -> None:
    await blob(api)
    begun = await begin(api)
    await gate.next()
    await api.publish(NOTES)
    gate.is_open.set()
    operation = await ended(api, begun.id)
    assert (operation.state, reason(operation)) == (FAILED, "WRONG_PHASE")


async def test_a_running_operation_that_is_cancelled_stops_and_writes_nothing(gate: Gate, api: Api) -> None:
    await blob(api)
    begun = await begin(api)
    await gate.next()
    cancelled = await cancel(api, begun.id)
    assert cancelled.state == CANCELLED
    assert cancelled.WhichOneof("result") is None
    await until(lambda: gate.cancelled == [begun.id])
    assert await cancel(api, begun.id) == cancelled
    gate.is_open.set()
    await put(api, text="d")
    assert (await ended(api, (await begin(api)).id)).state == SUCCEEDED
    assert (await get(api, begun.id), await text(api)) == (cancelled, "D")


async def test_one_that_has_ended_is_not_cancelled(api: Api) -> None:
    await blob(api)
    operation = await ended(api, (await begin(api)).id)
    assert await outcome(cancel(api, operation.id)) == "OPERATION_ENDED"
    assert await get(api, operation.id) == operation


async def test_a_blob_has_so_many_operations_that_have_not_ended_and_no_more(gate: Gate, api: Api) -> None:
    await blob(api)
    limit = limit_pb2.UpdateLimitRequest(
        parent=NOTES, name="blob.open_operations", update_mask={"paths": ["value"]}, value=3
    )
    await api.limits.UpdateLimit(limit)
    tried = await asyncio.gather(*(begin(api) for _ in range(8)), return_exceptions=True)
    begun = [item for item in tried if isinstance(item, pb.Operation)]
    refused = [item for item in tried if isinstance(item, grpc.aio.AioRpcError)]
    assert (len(begun), {reason_of(error) for error in refused}) == (3, {"LIMIT_EXCEEDED"})
    await cancel(api, begun[0].id)
    await begin(api)
