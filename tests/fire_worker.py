"""A worker as a process of its own, to be killed and frozen: `fire_worker.py ADDRESS_FILE KEY NAME ANSWERS`.

It appends a line of JSON to the file ANSWERS for each answer that the server has taken in, or refused.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import grpc
import tasks
from blobhub_server.blobtypes.conformance import reason_of
from served import Api, connected

LEASE_SECONDS = 1
TASKS = 4
WORK_SECONDS = 0.002
"""So that whoever is killed or frozen has mostly begun something."""
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)


async def main(where: str, key: str, name: str, answers: str) -> None:
    """Work for ever, wherever the server is."""
    file = os.open(answers, os.O_WRONLY | os.O_APPEND)
    while True:
        try:
            async with connected(Path(where).read_text(), key) as api:
                await _work(api, name, file)
        except (EOFError, TimeoutError):
            continue
        except grpc.aio.AioRpcError as error:
            if error.code() not in AWAY:
                raise
        await asyncio.sleep(0.02)


async def _work(api: Api, name: str, file: int) -> None:
    async with tasks.leasing(api, worker=name, maximum_tasks=TASKS, seconds=LEASE_SECONDS) as leases:
        while True:
            leased = await leases.next()
            await asyncio.sleep(WORK_SECONDS)
            taken = await _say(api, leased.lease)
            line = json.dumps({"key": leased.idempotency_key, "lease": leased.lease, "taken": taken, "worker": name})
            os.write(file, f"{line}\n".encode())  # in one piece: it may be killed at any point


async def _say(api: Api, lease: str) -> bool:
    """Say that a task is done, with the lease as the result, of which there is no other; whether that was taken in."""
    try:
        await tasks.complete(api, lease, lease)
    except grpc.aio.AioRpcError as error:
        if error.code() in AWAY or reason_of(error) != "LEASE_LOST":
            raise
        return False
    return True


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
