"""Retention: signals that nobody has waited for in 30 days are removed, beside the calls and some to a transaction."""

from __future__ import annotations

import asyncio
from functools import partial

from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.db.upkeep import remove_in_rounds, take_passes
from blobhub_server.ids import first_id
from blobhub_server.workflow.rules.signal import KEPT_FOR
from blobhub_server.workflow.store import signal as store

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
        await take_passes(self._host.db, self.take_pass, "signals_not_removed")

    async def take_pass(self) -> None:
        """Remove what came too long ago. Ids tell when they were made."""
        end = first_id(self._host.clock() - KEPT_FOR)
        await remove_in_rounds(self._host.db, partial(_remove_some, end=end), ROWS)


async def _remove_some(tx: Transaction, *, end: str) -> int:
    """Remove the oldest; return how many were found. One that was taken meanwhile is gone."""
    found = await store.list_before(tx, end, ROWS)
    for blob_id in sorted({blob_id for _, blob_id in found}):
        await store.lock(tx, blob_id)
    await store.remove(tx, [signal_id for signal_id, _ in found])
    return len(found)
