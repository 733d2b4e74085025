"""A model of hundreds of megabytes comes in parts and is processed, and the server's own memory does not grow with it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import acme
import models
import pytest
from blobhub.v1 import operation_pb2
from figures import Figure
from model_uploads import ONNX, model_of, sending, sha256, stored
from scale import scaled
from served import ServerProcess, connected

LARGE_BYTES = scaled(1000, least=200) << 20
GROWTH_BYTES = 48 << 20
AT_ONCE = 4


def peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) << 10


@pytest.mark.timeout(3600)
async def test_a_large_model_takes_no_more_of_the_servers_memory_than_a_small_one(tmp_path: Path, figure: Figure) -> None:
    server, peaks = ServerProcess(tmp_path / "data", fresh=True), []
    await server.start()
    async with connected(server.address, server.admin_key) as api:
        await acme.organization(api)
        # The small one has as many parts under way, so what a part takes is counted with it.
        for name, size in (("small", 40 << 20), ("large", LARGE_BYTES)):
            await acme.blob(api, f"acme/{name}", ONNX)
            model, revision = model_of(size), f"acme/{name}@draft"
            async with sending(api, model, revision=revision, part_size=8 << 20, sha256=sha256(model)) as sender:
                for first in range(1, sender.upload.part_count + 1, AT_ONCE):
                    await asyncio.gather(*map(sender.put, [*sender.numbers][first - 1 :][:AT_ONCE]))
                # A gigabyte takes a busy machine more than a minute, so this waits for as long as it takes.
                await models.processed(api, operation_pb2.Operation(id=await sender.complete()))
            assert await stored(api, revision) == sha256(model)
            peaks.append(peak(server.pid))
    assert server.stop() == 0
    growth = peaks[1] - peaks[0]
    figure(f"{LARGE_BYTES >> 20} MiB in parts: the server has had {peaks[1] >> 20} MiB, {growth / (1 << 20):.1f} MiB more")
    assert growth < GROWTH_BYTES
