"""A worker that begins a task of the queue `handoff`, prints its idempotency key, and never ends: it is to be killed."""

from __future__ import annotations

import asyncio
import os

from blobhub_client import Task, Worker, connect

LEASE_SECONDS = 2.0


async def main() -> None:
    async with connect(os.environ["CONFORMANCE_ADDRESS"], os.environ["CONFORMANCE_KEY"]) as hub:
        worker = Worker(hub.channel, os.environ["CONFORMANCE_SHARED"], lease_seconds=LEASE_SECONDS)

        @worker.task("handoff")
        async def hold(task: Task) -> None:
            print(task.idempotency_key, flush=True)
            await asyncio.Event().wait()

        await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
