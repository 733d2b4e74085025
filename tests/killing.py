"""Servers that are killed while they are at work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from served import Api, ServerProcess, connected
from waiting import until


async def work_until_killed(
    server: ServerProcess,
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
        server.kill()
        await asyncio.gather(*workers)
    key = server.admin_key
    await server.start()
    server.admin_key = key
