"""Removes tasks that ended some time ago."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from blobhub_server.background import in_background
from blobhub_server.blobtypes.contract import Host
from blobhub_server.errors import StorageUnavailable
from blobhub_server.workflow.store import task as store

log = structlog.get_logger()

EVERY_SECONDS = 60.0
ROWS = 200
"""How many tasks a transaction removes at most."""
REST_SECONDS = 0.05


@asynccontextmanager
async def removing_ended(host: Host) -> AsyncIterator[None]:
    """Remove tasks that ended long enough ago, now and then, until the block is left."""
    async with in_background(_remove_forever(host), "tasks"):
        yield


async def _remove_forever(host: Host) -> None:
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            await _remove_all(host)
        except StorageUnavailable as error:
            host.db.trouble.report(error)
        except Exception:
            log.exception("tasks_not_removed")


async def _remove_all(host: Host) -> None:
    removed = ROWS
    while removed >= ROWS:
        removed = await host.db.transact(lambda tx: store.delete_ended(tx, ROWS))
        await asyncio.sleep(REST_SECONDS)
