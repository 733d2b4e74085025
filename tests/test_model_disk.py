"""A full disk under models, and a system that starts no process: what can wait does, and all goes on after it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import models
import pytest
from blobhub.v1 import inference_pb2
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.errors import Overloaded
from blobhub_server.onnx.inference import process as answering
from blobhub_server.onnx.process_model import ProcessModel
from blobhub_server.onnx.processing import processor
from blobhub_server.platform.blobs.operations import attempt
from blobhub_server.scarcity import scarcity_errors
from calling import ask, seconds_to_retry
from databases import select
from inferring import doubling
from model_uploads import collectors_at_rest, left_after_collecting, model_of, sending, sha256
from models import DRAFT, Start, describe, put, upload
from served import Api, connected, served
from small_disk import fill, make_room, small_disk
from waiting import until

__all__ = ["small_disk"]

MIB = 1 << 20
MODEL = model_of(2 * MIB)
DOUBLING = doubling().SerializeToString()
X = inference_pb2.InferenceTensor(name="x", datatype="FP32", shape=[1, 4], floats=[1, 2, 3, 4])
FULL = (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    """Code and reason of a call that is refused, and may be made again."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert seconds_to_retry(caught.value) > 0
    return caught.value.code(), reason_of(caught.value)


async def infer(api: Api) -> list[float]:
    return [*(await ask(api, "Infer", revision=DRAFT, inputs=[X])).outputs[0].floats]


async def filling_up(disk: Path, over: asyncio.Event) -> AsyncIterator[Start]:
    """An upload in the middle of which the disk becomes full. Then it stalls: gRPC's client hides refusals as it sends."""
    for number in range(5):
        if number == 4:
            fill(disk)
        yield Start(revision="" if number else DRAFT, chunk=MODEL[:MIB])
    with suppress(TimeoutError):
        async with asyncio.timeout(10):
            await over.wait()


class Waiting:
    """Operations that wait in front of their work until they are let go, and how often they have begun it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go = 0, asyncio.Event()
        perform = ProcessModel.perform

        async def wait(process_model: ProcessModel, work: Any) -> Any:
            self.begun += 1
            await self.go.wait()
            return await perform(process_model, work)

        monkeypatch.setattr(ProcessModel, "perform", wait)
        monkeypatch.setattr(attempt, "retry_seconds", lambda _: 0.02)


async def test_models_outlast_a_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collectors = collectors_at_rest(monkeypatch)
    data = small_disk / "data"
    async with served(data) as server, connected(server.address, server.admin_key) as api:
        await models.blob(api)
        await models.stored(api, DOUBLING)
        before = await describe(api)
        async with sending(api, MODEL, part_size=MIB, sha256=sha256(MODEL)) as sender:
            await sender.put(1)
            over = asyncio.Event()
            assert await refused(models.send(api, filling_up(small_disk, over))) == FULL
            over.set()
            fill(small_disk)  # What had come is gone again.
            for send, content in ((put, MODEL), (upload, MODEL[: MIB - 1])):
                assert await refused(send(api, content)) == FULL
            answer = await sender.put(2)
            assert (answer.status_code, answer.json()["reason"]) == (503, "STORAGE_FULL")
            assert int(answer.headers["retry-after"]) > 0
            assert [*(data / "objects" / "parts").iterdir()] == []
            # What is there is read and asked all the same.
            assert await describe(api) == before
            assert await infer(api) == [2, 4, 6, 8]
            async with httpx.AsyncClient() as client:
                make_room(small_disk)
                signed = await models.sign(api)
                fill(small_disk)
                assert (await client.get(signed.url)).content == DOUBLING
            make_room(small_disk)
            await sender.put_all([2, 3])
            waiting = Waiting(monkeypatch)
            operation_id = await sender.complete()
            await until(lambda: waiting.begun)
            fill(small_disk)
            waiting.go.set()
            await until(lambda: waiting.begun > 3)
            assert await sender.state() == "COMPLETING"
            make_room(small_disk)
            assert await sender.ended() == "COMPLETED"
            assert (await describe(api)).digest == sha256(MODEL)
        assert operation_id in {each.id for each in (await ask(api, "ListOperations", blob="acme/scorer")).operations}
        held = await select(f"sqlite:///{data}/blobhub.db", "SELECT DISTINCT digest FROM entries")
        assert await left_after_collecting(collectors[0]) == ({digest for (digest,) in held}, [])
        for folder in ("objects/parts", "models"):
            assert [*(data / folder).iterdir()] == []


async def test_where_no_process_can_be_started_operations_wait_and_requests_are_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "retry_seconds", lambda _: 0.02)
    tries = 0

    def fail(**_: object) -> None:
        nonlocal tries
        tries += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with served(tmp_path / "data") as server, connected(server.address, server.admin_key) as api:
        await models.blob(api)
        with monkeypatch.context() as patched:
            patched.setattr(processor, "TemporaryDirectory", fail)
            operation = await put(api, DOUBLING)
            await until(lambda: tries > 2)
            assert not await models.has_ended(api, operation.id)
        await models.processed(api, operation)
        with monkeypatch.context() as patched:
            patched.setattr(answering, "TemporaryDirectory", fail)
            assert await refused(infer(api)) == FULL
        assert await infer(api) == [2, 4, 6, 8]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE])
def test_a_system_that_has_nothing_to_give_is_overloaded(number: int) -> None:
    with pytest.raises(Overloaded), scarcity_errors():
        raise OSError(number, os.strerror(number))
    with pytest.raises(FileNotFoundError), scarcity_errors():
        raise FileNotFoundError(errno.ENOENT, "no such program")
