"""A change and its entry in the audit log are one, also when the server is killed."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import acme
import grpc
from blobhub.v1 import (
    audit_pb2,
    blob_pb2,
)
from blobhub_client import page
from scale import scaled
from served import Api, ServerProcess, connected
from waiting import until


async def test_a_server_killed_in_the_middle_of_changes_has_an_entry_for_each_that_exists(
    tmp_path: Path, database_url: str
) -> None:
    """An entry is written in the transaction of its change: with `kill -9` there are both or neither."""
    server = ServerProcess(tmp_path / "data", database_url, lease_seconds=1)
    await server.start()
    key = server.admin_key
    async with connected(server.address, key) as api:
        await acme.organization(api)
    for round_ in range(scaled(3, least=1)):
        acknowledged: set[str] = set()
        async with connected(server.address, key) as api:
            changing = [asyncio.create_task(change(api, f"{round_}-{number}", acknowledged)) for number in range(16)]
            await until(lambda acknowledged=acknowledged: len(acknowledged) >= 40)
            server.kill()
            await asyncio.gather(*changing)
        await server.start()
        async with connected(server.address, key) as api:
            await check(api, acknowledged)
    assert server.stop() == 0


async def change(api: Api, name: str, acknowledged: set[str]) -> None:
    """Make blobs, and give each a description, until the server is gone."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        for number in range(10_000):
            blob = await acme.blob(api, f"acme/{name}-{number}")
            acknowledged.add(blob.id)
            await acme.update_blob(api, f"acme/{name}-{number}", description="changed")


async def check(api: Api, acknowledged: set[str]) -> None:
    listing = blob_pb2.ListBlobsRequest(organization="acme", page_size=1000)
    blobs = {blob.id: blob async for blob in page(api.blobs.ListBlobs, listing)}
    listed = audit_pb2.ListAuditEntriesRequest(parent="acme", page_size=1000)
    found = [entry async for entry in page(api.audit.ListAuditEntries, listed)]
    assert [entry.sequence for entry in found] == list(range(2, len(found) + 2)), "after that of the first start"
    created = [entry.blob_id for entry in found if entry.method.endswith("/CreateBlob")]
    updated = [entry.blob_id for entry in found if entry.method.endswith("/UpdateBlob")]
    assert acknowledged <= blobs.keys()
    assert sorted(created) == sorted(blobs)
    assert sorted(updated) == sorted(id_ for id_, blob in blobs.items() if blob.description)
