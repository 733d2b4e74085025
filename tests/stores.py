"""Object stores of each kind to test, and what a client does with them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import fake_google
import httpx
from blobhub_server.objects.contract import ObjectStore, UploadPart
from blobhub_server.objects.grant import Grant
from blobhub_server.objects.local import LocalObjects


class Stores:
    """Makes empty stores of one kind."""

    def __init__(self, kind: str, folder: Path, client: Any) -> None:
        self._kind, self._folder, self._client = kind, folder, client

    def make(self) -> ObjectStore:
        if self._kind == "local":
            return LocalObjects(self._folder / str(uuid4()))
        return fake_google.google_objects(self._client, f"tests/{uuid4()}")


async def read(store: ObjectStore, digest: str, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in store.read(digest, offset, length)])


async def put_part(store: ObjectStore, upload_id: str, number: int, data: bytes) -> UploadPart:
    """Send a part as a client does; what it is answered."""
    if isinstance(store, LocalObjects):
        async with store.part_files.write(upload_id, number, len(data)) as writer:
            await writer.append(data)
            return await writer.commit({})
    grant = Grant.to_put(upload_id, number, len(data), actor_id="", now=datetime.now(UTC))
    signed = await store.sign(grant)
    async with httpx.AsyncClient() as client:
        answer = await client.request(signed.method, signed.url, headers=signed.headers, content=data)
    assert answer.status_code == 200, answer.text
    return UploadPart(number=number, size=len(data), etag=answer.headers["etag"].strip('"'))
