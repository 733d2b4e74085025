"""Servers that are killed while a model comes in parts, or while it is processed: it goes on, and nothing is left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import acme
import httpx
import pytest
from model_uploads import ONNX, PART, Sender, model_of, nothing_is_left, sending, sha256, stored
from scale import scaled
from served import ServerProcess, connected

KILLS = scaled(30, least=2)
MODEL = model_of(12 * PART)


async def slowly(data: bytes, begun: asyncio.Event) -> AsyncIterator[bytes]:
    """Half of some bytes, and then nothing more."""
    yield data[: len(data) // 2]
    begun.set()
    await asyncio.Event().wait()


async def send_until_killed(server: ServerProcess, sender: Sender, number: int) -> None:
    """Begin to send a part, and kill the server in the middle of it."""
    (signed,) = await sender.sign(number)
    begun = asyncio.Event()
    headers = dict(signed.headers) | {"content-length": str(signed.size)}
    request = sender.client.request(signed.method, signed.url, content=slowly(sender.part(number), begun), headers=headers)
    sending_it = asyncio.create_task(request)
    await begun.wait()
    server.kill()
    sending_it.cancel()
    with suppress(httpx.HTTPError, asyncio.CancelledError):
        await sending_it


async def restarted(server: ServerProcess) -> None:
    key = server.admin_key
    await server.start()
    server.admin_key = key


@pytest.mark.timeout(3600)
async def test_a_model_outlives_kills_of_its_server(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice, server = random.Random(12), ServerProcess(tmp_path / "data", database_url, operation_lease_seconds=1)
    await server.start()
    async with connected(server.address, server.admin_key) as api:
        await acme.organization(api)
    for number in range(KILLS):
        async with connected(server.address, server.admin_key) as api:
            await acme.blob(api, f"acme/scorer-{number}", ONNX)
            async with sending(api, MODEL, revision=f"acme/scorer-{number}@draft", sha256=sha256(MODEL)) as sender:
                come = dice.sample(sender.numbers, dice.randrange(len(sender.numbers)))
                await sender.put_all(come)
                await send_until_killed(server, sender, dice.choice(sender.numbers))
        await restarted(server)
        async with connected(server.address, server.admin_key) as api, httpx.AsyncClient(timeout=60) as client:
            again = Sender(api, client, sender.upload, MODEL)
            again.etags = {part.number: part.etag for part in await again.parts()}
            assert sorted(again.etags) == sorted(come)
            await again.put_all([number for number in again.numbers if number not in again.etags])
            operation_id = await again.complete()
            await asyncio.sleep(dice.uniform(0, 1))
            server.kill()
        await restarted(server)
        async with connected(server.address, server.admin_key) as api, httpx.AsyncClient() as client:
            again = Sender(api, client, sender.upload, MODEL)
            assert await again.ended() == "COMPLETED"
            assert (await again.get()).operation_id == operation_id
            assert await stored(api, f"acme/scorer-{number}@draft") == sha256(MODEL)
    assert server.stop() == 0
    await nothing_is_left(tmp_path, database_url, server.admin_key, monkeypatch)
