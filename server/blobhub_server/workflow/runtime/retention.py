"""Retention: signals that nobody has waited for in 30 days are removed, beside the calls and some to a transaction."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import structlog

from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import StorageUnavailable
from blobhub_server.ids import first_id
from blobhub_server.workflow.rules.signal import KEPT_FOR
from blobhub_server.workflow.store import signal as store

log = structlog.get_logger()

PASS_SECONDS = 3600.0
"""How long between two passes."""
ROWS = 10
"""How many signals a transaction removes at most. Each may have a mebibyte, which takes SQLite 10 ms."""


class SignalRetention:
    """Removes signals that are not kept any longer, in the background of a server."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._serving = asyncio.Event()

    def on_serving(self) -> None:
        """Begin: the server answers calls by now."""
        self._serving.set()

    async def remove_forever(self) -> None:
        """Take a pass, and another one each hour, until cancelled."""
        await self._serving.wait()
        while True:
            try:
                await self.take_pass()
            except StorageUnavailable as error:
                self._host.db.trouble.report(error)
            except Exception:
                log.exception("signals_not_removed")
            await asyncio.sleep(PASS_SECONDS)

    async def take_pass(self) -> None:
        """Remove what came too long ago. Ids tell when they were made."""
        end = first_id(self._host.clock() - KEPT_FOR)
        removed = ROWS
        while removed == ROWS:
            begin = time.monotonic()
            removed = await self._host.db.transact(partial(_remove_some, end=end))
            # None is urgent, and calls come first.
            await asyncio.sleep(time.monotonic() - begin)


async def _remove_some(tx: Transaction, *, end: str) -> int:
    """Remove the oldest; return how many were found. One that was taken meanwhile is gone."""
    found = await store.list_before(tx, end, ROWS)
    for blob_id in sorted({blob_id for _, blob_id in found}):
        await store.lock(tx, blob_id)
    await store.remove(tx, [signal_id for signal_id, _ in found])
    return len(found)
