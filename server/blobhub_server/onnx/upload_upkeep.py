"""Upkeep of uploads, beside the calls: what has ended is noted and its parts are removed; what is long over is forgotten.

Removing parts is an effort of this server alone, and ends with it. What it leaves, the object collector removes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta
from functools import partial

from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.db.upkeep import attempt
from blobhub_server.ids import NOTHING
from blobhub_server.onnx.rules.upload import UploadState
from blobhub_server.onnx.store import upload as store
from blobhub_server.onnx.uploads import Uploads

LOOK_SECONDS = 60.0
"""How often it is looked for what has ended."""
ROWS = 100
"""How many uploads a transaction changes at most. Others wait for it, so it has to be short."""

_PARTY = ("", "uploads")
"""Who this is where it takes turns."""
_UNENDED = (UploadState.OPEN, UploadState.COMPLETING)


class UploadUpkeep:
    """Notes what has ended, and removes what is left of it."""

    def __init__(self, host: Host, uploads: Uploads, lifetime: timedelta) -> None:
        """`lifetime` is how long an upload is known after its end."""
        self._host = host
        self._uploads = uploads
        self._lifetime = lifetime
        self._serving = asyncio.Event()
        self._some_ended = asyncio.Event()
        self._ended: set[str] = set()

    def on_serving(self) -> None:
        """Begin: the server answers calls by now."""
        self._serving.set()

    def discard_soon(self, upload_ids: Collection[str]) -> None:
        """Remove the parts of uploads that have ended, without holding up whoever has ended them."""
        self._ended.update(upload_ids)
        self._some_ended.set()

    async def run(self) -> None:
        """Look for what is to be done, for ever."""
        await self._serving.wait()
        while True:
            for work in (self._expire, self._settle, self._forget):
                await attempt(self._host.db, work, "upkeep_failed")
            await self._discard_as_they_end(LOOK_SECONDS)

    async def _discard_as_they_end(self, seconds: float) -> None:
        """Remove parts for so long. What is being removed is not broken off: it would be forgotten."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            self._some_ended.clear()
            await attempt(self._host.db, self._discard, "upkeep_failed")
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._some_ended.wait()

    async def _discard(self) -> None:
        for upload_id in [*self._ended]:
            await self._host.objects.discard(upload_id)
            self._ended.discard(upload_id)

    async def _expire(self) -> None:
        """End the open uploads whose time is over."""
        while True:
            async with self._host.db.read() as tx:
                found = await store.expired(tx, self._host.clock(), ROWS)
            if not found:
                return
            await self._end(found)

    async def _settle(self) -> None:
        """End the uploads whose operation has ended otherwise than by completing them."""
        after = NOTHING
        while True:
            async with self._host.db.scan(_PARTY, patient=True) as tx:
                page = await store.completing(tx, after, ROWS)
                current = await self._uploads.current(tx, page)
            if not page:
                return
            await self._end([each.id for each in current if each.state not in _UNENDED])
            after = page[-1].id

    async def _forget(self) -> None:
        """Remove what is known of uploads that have ended long ago."""
        before, removed = self._host.clock() - self._lifetime, ROWS
        while removed == ROWS:
            removed = await self._host.db.transact(partial(store.delete_ended_before, time=before, rows=ROWS))

    async def _end(self, upload_ids: Collection[str]) -> None:
        """Note of some uploads that they have ended, and remove their parts."""
        if upload_ids:
            self.discard_soon(await self._host.db.transact(partial(self._end_some, upload_ids=upload_ids)))

    async def _end_some(self, tx: Transaction, upload_ids: Collection[str]) -> list[str]:
        """Those of the uploads that had not ended."""
        locked = await store.lock_some(tx, upload_ids)
        unended = [each for each in await self._uploads.current(tx, locked) if each.state not in _UNENDED]
        await store.update(tx, unended)
        return [each.id for each in unended]
