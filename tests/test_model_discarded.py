"""Models on their way to a draft that is discarded meanwhile: they go nowhere, and nothing of them is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import acme
import models
import pytest
from blobhub.v1 import operation_pb2
from blobhub_server.onnx import upload_upkeep
from blobhub_server.onnx.models import ENTRIES
from blobhub_server.onnx.process_model import ProcessModel
from blobhub_server.platform.blobs.object_collection import ObjectCollector
from calling import ask, outcome
from model_uploads import PART, Sender, collectors_at_rest, left_after_collecting, model_of, scorer, sending
from models import DRAFT, SMALL, Start
from served import Api, connected, served
from waiting import until, within_deadline

MODEL = model_of(2 * PART)


class Gate:
    """Where processing waits once the model is read."""

    def __init__(self) -> None:
        self.entered, self.open = asyncio.Event(), asyncio.Event()


@pytest.fixture
def collectors(monkeypatch: pytest.MonkeyPatch) -> list[ObjectCollector]:
    """The collectors of the servers that are started, which collect when they are told to."""
    return collectors_at_rest(monkeypatch)


@pytest.fixture
async def owner(
    tmp_path: Path, database_url: str, collectors: list[ObjectCollector], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Api]:
    """A client that has a commit with a model, and a draft with the same one."""
    monkeypatch.setattr(upload_upkeep, "LOOK_SECONDS", 0.05)
    async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
        await scorer(api)
        await models.stored(api, SMALL)
        await acme.commit(api, DRAFT)
        await acme.branch(api, blob="acme/scorer")
        yield api


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Have processing wait."""
    made, examine = Gate(), ProcessModel._examine

    async def waiting(self: ProcessModel, *given: object) -> object:
        made.entered.set()
        await made.open.wait()
        return await examine(self, *given)

    monkeypatch.setattr(ProcessModel, "_examine", waiting)
    return made


async def require_nothing_left(owner: Api, collector: ObjectCollector) -> None:
    """The commit has its model, there is no draft, and the store has nothing else."""
    assert await outcome(models.describe(owner)) == "NOT_FOUND"
    assert (await models.download(owner, "acme/scorer@latest"))[1] == SMALL

    async def is_so() -> bool:
        """What was cancelled while it was processed may still put something there; then that is collected next."""
        objects, uploads = await left_after_collecting(collector)
        return (len(objects), uploads) == (len(ENTRIES), [])

    await until(is_so)


async def test_what_still_comes_is_refused(owner: Api, collectors) -> None:
    begun, discarded = asyncio.Event(), asyncio.Event()

    async def messages() -> AsyncIterator[Start]:
        yield Start(revision=DRAFT, chunk=MODEL[:PART])
        begun.set()
        await discarded.wait()
        yield Start(chunk=MODEL[PART:])

    stream = asyncio.create_task(outcome(models.send(owner, messages())))
    async with sending(owner, MODEL) as sender:
        await sender.put_all()
        await within_deadline(begun.wait())
        await ask(owner, "DiscardRevision", revision=DRAFT)
        discarded.set()
        assert await within_deadline(stream) == "NOT_FOUND"
        for call in (sender.sign(1), sender.complete()):
            assert await outcome(call) == "UPLOAD_NOT_OPEN"
        await sender.cancel()
        await until(partial(has_ended_without_parts, sender))
        assert await sender.state() == "CANCELLED"
    await require_nothing_left(owner, collectors[-1])


async def test_what_is_being_processed_is_cancelled(owner: Api, gate: Gate, collectors) -> None:
    async with sending(owner, MODEL) as sender:
        await sender.put_all()
        completing = await sender.complete()
        put = await models.put(owner, MODEL)
        await within_deadline(gate.entered.wait())
        await ask(owner, "DiscardRevision", revision=DRAFT)
        gate.open.set()
        assert await sender.ended() == "CANCELLED"
        assert await sender.complete() == completing
        for operation in (put, operation_pb2.Operation(id=completing)):
            ended = await models.ended(owner, operation)
            assert ended.state == operation_pb2.OperationState.OPERATION_STATE_CANCELLED
        await until(partial(has_ended_without_parts, sender))
    await require_nothing_left(owner, collectors[-1])


async def has_ended_without_parts(sender: Sender) -> bool:
    """Whether it is noted of an upload that it has ended, and its parts are removed."""
    return (await sender.get()).HasField("end_time") and await sender.parts() == []
