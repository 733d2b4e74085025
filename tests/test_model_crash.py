"""Servers that are killed while a model comes in one call, or while it is processed: it goes on, and nothing is left."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import acme
import grpc
import models
import pytest
from blobhub.v1 import operation_pb2
from calling import ask
from databases import select
from figures import Figure
from model_uploads import ONNX, PART, model_of, nothing_is_left
from models import Start, archive
from scale import scaled
from served import Api, ServerProcess, connected
from waiting import until

MODELS = scaled(10, least=1)
Send = Callable[[Api, bytes, str], Awaitable[operation_pb2.Operation]]


async def send_archive(api: Api, content: bytes, revision: str) -> operation_pb2.Operation:
    return await models.upload(api, archive(content), revision, form="MODEL_FORM_TAR_GZ")


WAYS: dict[str, tuple[Send, ...]] = {
    "sqlite": (models.put, models.upload, send_archive),
    "postgresql": (models.upload, send_archive, models.put),
}
"""By the database, so that more than one are tried however small the tests are."""


async def restart(server: ServerProcess) -> None:
    key = server.admin_key
    await server.start()
    server.admin_key = key


async def kill_in_the_middle_of_a_stream(
    server: ServerProcess, api: Api, content: bytes, revision: str, parts: Path
) -> None:
    """Send half of a model, and kill the server when it has begun to write that."""
    killed = asyncio.Event()

    async def half() -> AsyncIterator[Start]:
        for message in list(models.messages(content, revision))[: len(content) // models.CHUNK_BYTES // 2]:
            yield message
        await killed.wait()

    sending = asyncio.create_task(models.send(api, half()))
    await until(lambda: sending.done() or any(parts.iterdir()))
    assert not sending.done()
    server.kill()
    killed.set()
    with suppress(grpc.aio.AioRpcError):
        await sending


async def is_being_checked(api: Api, operation_id: str) -> bool:
    """Whether the model is looked at by the other process, or was."""
    operation = (await ask(api, "GetOperation", operation=operation_id)).operation
    return operation.progress.stage not in ("", "reading")


@pytest.mark.timeout(3600)
async def test_a_model_that_comes_in_one_call_outlives_kills_of_its_server(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    dice, parts = random.Random(12), tmp_path / "data" / "objects" / "parts"
    ways = WAYS[database_url.partition(":")[0]]
    server = ServerProcess(tmp_path / "data", database_url, operation_lease_seconds=1)
    await server.start()
    async with connected(server.address, server.admin_key) as api:
        await acme.organization(api)
    for number in range(MODELS):
        content, revision = model_of(40 * PART, seed=number), f"acme/scorer-{number}@draft"
        async with connected(server.address, server.admin_key) as api:
            await acme.blob(api, f"acme/scorer-{number}", ONNX)
            await kill_in_the_middle_of_a_stream(server, api, content, revision, parts)
        await restart(server)
        async with connected(server.address, server.admin_key) as api:
            assert list((await ask(api, "ListOperations", blob=f"acme/scorer-{number}")).operations) == []
            sent = await ways[number % len(ways)](api, content, revision)
            if number < len(ways) or dice.random() < 0.5:
                await until(partial(is_being_checked, api, sent.id))
            else:
                await asyncio.sleep(dice.uniform(0, 1))
            server.kill()
        await restart(server)
        async with connected(server.address, server.admin_key) as api:
            model = (await models.processed(api, sent)).model
            assert model == await models.describe(api, revision)
            found = {each.path: each.digest for each in model.artifacts}
            assert found["model.onnx"] == hashlib.sha256(content).hexdigest()
    assert server.stop() == 0
    ((anew,),) = await select(database_url, "SELECT count(*) FROM operations WHERE attempts > 1")
    figure(f"{anew} of {MODELS} models were processed anew")
    await nothing_is_left(tmp_path, database_url, server.admin_key, monkeypatch)
    assert sum(path.stat().st_size for path in (tmp_path / "data" / "models").iterdir()) == 0
