"""What GetBlob costs by itself: admission, its statements and its answer, without gRPC and without a client.

The caller is a member of the blob's organization, so the blob and the role are looked up for each call, and the key now and
then. Time of the processor is counted: the machine may have other things to do.

`python tests/benchmarks/own_cost.py [database URL]` prints it for a database of its own, or for another empty one.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from blobhub.v1 import blob_pb2
from blobhub_server.blobtypes.access import Role
from blobhub_server.platform.admission.gate import Gate
from blobhub_server.platform.rules import api_key as key_rules
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.member import Member
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.rules.user import new_user
from blobhub_server.platform.services.blob import BlobService
from blobhub_server.platform.store import api_key, blob, member, organization, user
from blobhub_server.rpc.access_options import rules

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from unserved import Unserved, unserved

ROUNDS, CALLS = 20, 1000
METHOD = "/blobhub.v1.BlobService/GetBlob"


async def fill(platform: Unserved) -> str:
    """One blob, and a member of its organization who reads it; returns their key."""
    ids, now, key = platform.host.ids, platform.host.clock(), key_rules.make_secret(os.urandom)
    user_id, organization_id, times = ids(), ids(), {"create_time": now, "update_time": now}
    async with platform.host.db.write() as tx:
        await user.insert(tx, new_user(id=user_id, name="reader", now=now, etag=ids()))
        own = {
            "user_id": user_id,
            "organization_id": None,
            "blob_id": None,
            "role": Role.WRITE,
            "description": "",
            "expire_time": None,
        }
        await api_key.insert(tx, key_rules.new_key(key, id=ids(), now=now, etag=ids(), **own))
        held = Organization(
            id=organization_id, alias="acme", description="", visibility="private", blob_count=1, etag=ids(), **times
        )
        await organization.insert(tx, held, user_id)
        await member.insert(
            tx,
            Member(
                user_id=user_id,
                user_name="",
                organization_id=organization_id,
                blob_id=None,
                role=Role.READ,
                create_time=now,
                update_time=now,
                etag=ids(),
            ),
        )
        made = {
            "id": ids(),
            "organization_id": organization_id,
            "alias": "pipeline",
            "type": "test",
            "visibility": "private",
            "etag": ids(),
        }
        counted = {"description": "", "default_revision_id": ids(), "last_sequence": 0, "bytes": 0}
        await blob.insert(tx, Blob(**made, **counted, **times))
    return key


def get_blob(platform: Unserved, gate: Gate, key: str) -> Callable[[], Awaitable[bytes]]:
    """The call, as the pipeline makes it."""
    service = BlobService(platform.host, platform.types, None)
    request = blob_pb2.GetBlobRequest(blob="acme/pipeline")
    metadata = (("authorization", f"Bearer {key}"),)

    async def call() -> bytes:
        async def answer(admitted) -> bytes:
            return (await service.GetBlob(request, admitted)).SerializeToString()

        admission = gate.arrive(METHOD, request, metadata)
        await admission.identify()
        return await admission.answer(answer)

    return call


async def own_cost(folder: Path, database_url: str) -> list[float]:
    """Microseconds of processor time a call, of every round."""
    took = []
    access = rules(["blobhub.v1.BlobService"])
    async with unserved(folder, database_url) as platform, platform.gate(access, platform.kinds()) as gate:
        call = get_blob(platform, gate, await fill(platform))
        for _ in range(ROUNDS):
            start = time.process_time()
            for _ in range(CALLS):
                await call()
            took.append((time.process_time() - start) / CALLS * 1e6)
    return took


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/blobhub.db"
        took = uvloop.run(own_cost(Path(folder) / "data", url))
        print(f"GetBlob without gRPC: median {statistics.median(took):.1f} µs, least {min(took):.1f} µs")


if __name__ == "__main__":
    main()
