"""Servers that are killed while they are at work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from blobhub_server.workflow.runtime.embedded.caution import MAX_RECOVERIES
from databases import select
from served import Api, ServerProcess, connected
from waiting import until

SUSPECTED = f"SELECT id FROM executions WHERE recoveries >= {MAX_RECOVERIES - 1}"
"""Executions that would be failed as poison if a server went down once more before they have gone on."""


async def nothing_suspected(url: str) -> bool:
    """Whether no execution of a database is failed for the next kill, which is no fault of its own."""
    return not await select(url, SUSPECTED)


async def work_until_killed(
    server: ServerProcess,
    url: str,
    work: Callable[[Api], Coroutine[Any, Any, None]],
    at_once: int,
    acknowledged: Collection[str],
    seed: random.Random,
) -> None:
    """Do so much work at once on a server, kill it at a random moment after something was acknowledged, start it again."""
    before = len(acknowledged)
    async with connected(server.address, server.admin_key) as api:
        workers = [asyncio.create_task(work(api)) for _ in range(at_once)]
        await until(lambda: len(acknowledged) > before)
        await asyncio.sleep(seed.uniform(0, 0.4))
        await until(lambda: nothing_suspected(url))
        server.kill()
        await asyncio.gather(*workers)
    key = server.admin_key
    await server.start()
    server.admin_key = key
