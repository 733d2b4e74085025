"""Operations for tests: notes that are put into capitals, by a performer that waits until it is told to go on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

import acme
import grpc
import pytest
from blobhub.v1 import operation_pb2 as pb
from blobhub_server.blobtypes.operations import Finish, Work
from calling import ask
from google.rpc import error_details_pb2
from served import Api
from stranger.notes.v1 import notes_pb2
from stranger_notes.capitals import Capitals
from waiting import within_deadline

NOTES = "acme/notes"
PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED = (
    pb.OperationState.Value(f"OPERATION_STATE_{name}") for name in ("PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED")
)


async def blob(api: Api, place: str = NOTES, text: str = "a\nb\nc") -> None:
    """Make an organization, unless it is there, and in it a blob of notes with one note."""
    with suppress(grpc.aio.AioRpcError):
        await acme.organization(api, place.partition("/")[0])
    await acme.blob(api, place, "stranger.notes")
    await put(api, place, text)


async def put(api: Api, place: str = NOTES, text: str = "a\nb\nc") -> None:
    """Write the note."""
    await ask(api, "PutNote", revision=f"{place}@draft", name="one", text=text)


async def begin(api: Api, place: str = NOTES, **fields: str) -> pb.Operation:
    """Begin to put the note into capitals."""
    return (await ask(api, "CapitalizeNote", revision=f"{place}@draft", name="one", **fields)).operation


async def get(api: Api, operation_id: str) -> pb.Operation:
    """An operation as it is now."""
    return (await api.operations.GetOperation(pb.GetOperationRequest(operation=operation_id))).operation


async def ended(api: Api, operation_id: str) -> pb.Operation:
    """An operation as it ended, once it has."""
    return (await within_deadline(watched(api, operation_id)))[-1]


async def watched(api: Api, operation_id: str, after: int = 0, *, replay_only: bool = False) -> list[pb.Operation]:
    """All that a watch shows of an operation, to its end."""
    request = pb.WatchOperationRequest(operation=operation_id, after_sequence=after, replay_only=replay_only)
    return [item async for batch in api.operations.WatchOperation(request) for item in batch.operations]


async def cancel(api: Api, operation_id: str, **fields: str) -> pb.Operation:
    """Cancel an operation."""
    request = pb.CancelOperationRequest(operation=operation_id, **fields)
    return (await api.operations.CancelOperation(request)).operation


async def text(api: Api, place: str = NOTES) -> str:
    """What the note says."""
    return (await ask(api, "GetNote", revision=f"{place}@draft", name="one")).text


def capitalized(operation: pb.Operation) -> notes_pb2.CapitalizedNote:
    """The response of an operation."""
    response = notes_pb2.CapitalizedNote()
    assert operation.response.Unpack(response), operation
    return response


def reason(operation: pb.Operation) -> str:
    """The reason of an operation's error."""
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in operation.error.details), operation
    return info.reason


@dataclass
class Gate:
    """Where performers wait. `entered` has the operations that have come to it, each as often as it did."""

    entered: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    left: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    errors: list[BaseException] = field(default_factory=list)

    async def next(self) -> str:
        """Wait until a performer has come, and say for which operation."""
        return await within_deadline(self.entered.get())


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Have all performers of notes in this process wait at a gate, and raise its errors, each once, before they go on."""
    made, perform = Gate(), Capitals.perform

    async def waiting(self: Capitals, work: Work) -> Finish:
        made.entered.put_nowait(work.operation_id)
        try:
            await made.is_open.wait()
        except asyncio.CancelledError:
            made.cancelled.append(work.operation_id)
            raise
        if made.errors:
            raise made.errors.pop(0)
        made.left.append(work.operation_id)
        return await perform(self, work)

    monkeypatch.setattr(Capitals, "perform", waiting)
    return made
