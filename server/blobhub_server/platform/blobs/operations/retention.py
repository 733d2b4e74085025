"""Retention: operations that ended long ago, or are too many of one blob, are removed beside the calls."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.db.upkeep import PASS_SECONDS, remove_in_rounds, take_passes
from blobhub_server.platform.store import operation as store

MAX_AGE = timedelta(days=30)
"""How long an operation is kept after it has ended."""
MAX_ENDED = 1_000
"""How many operations that have ended are kept of a blob, once a pass has come by."""
ROWS = 250
"""How many rows a transaction removes at most."""
_PARTY = ("", "operations")


class Retention:
    """Removes operations, in the background of a server."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def remove_forever(self) -> None:
        """Take a pass after every hour, until cancelled."""
        await asyncio.sleep(PASS_SECONDS)
        await take_passes(self._db, self.take_pass, "operations_not_removed")

    async def take_pass(self) -> None:
        """Remove what is not kept any longer."""
        end = self._clock() - MAX_AGE
        await remove_in_rounds(self._db, lambda tx: store.delete_ended_before(tx, end, ROWS), ROWS)
        async with self._db.scan(_PARTY, patient=True) as tx:
            blob_ids = await store.blobs_with_more(tx, MAX_ENDED)
        for blob_id in blob_ids:
            await remove_in_rounds(self._db, partial(_remove_surplus, blob_id=blob_id), ROWS)


async def _remove_surplus(tx: Transaction, *, blob_id: str) -> int:
    return await store.delete_surplus(tx, blob_id, MAX_ENDED, ROWS)
