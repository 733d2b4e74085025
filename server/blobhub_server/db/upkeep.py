"""What a server does for its storage now and then, beside the calls. Whatever fails is done again the next time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import StorageUnavailable

log = structlog.get_logger()

PASS_SECONDS = 3600.0
"""How long between two passes."""


async def attempt(db: Database, work: Callable[[], Awaitable[None]], failure: str) -> None:
    """Do some work. Trouble with the storage is reported, and any other error logged as `failure`."""
    try:
        await work()
    except StorageUnavailable as error:
        db.trouble.report(error)
    except Exception:
        log.exception(failure, work=getattr(work, "__name__", ""))


async def take_passes(db: Database, take_pass: Callable[[], Awaitable[None]], failure: str) -> None:
    """Take a pass, and another one each hour, until cancelled."""
    while True:
        await attempt(db, take_pass, failure)
        await asyncio.sleep(PASS_SECONDS)


async def remove_in_rounds(db: Database, remove_some: Callable[[Transaction], Awaitable[int]], rows: int) -> None:
    """Remove in transactions of so many rows each, until one has found fewer.

    Nothing of it is urgent, and calls come first: they have as long after each as it has taken.
    """
    found = rows
    while found == rows:
        begin = time.monotonic()
        found = await db.transact(remove_some)
        await asyncio.sleep(time.monotonic() - begin)
