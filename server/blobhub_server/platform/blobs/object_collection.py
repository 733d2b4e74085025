"""Collects objects that nothing refers to any more, and uploads in parts that nobody has open.

Bytes are stored before the transaction that refers to them, so what nothing refers to may be needed in a moment. It is
removed when it was found unneeded in two passes, an hour apart, and was not stored again in between, which gives an object
another generation. So no age is compared, a clock that is set does no harm, and nothing has to be stored about it: a server
that is started anew looks for an hour first. Several servers on one store do each other no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.db.upkeep import PASS_SECONDS, take_passes
from blobhub_server.errors import BlobTypeNotInstalled
from blobhub_server.objects.contract import ObjectStore, StoredObject
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import content as content_store
from blobhub_server.platform.store import operation as operation_store

log = structlog.get_logger()

AT_ONCE = 500
"""How many objects are listed and looked up at once."""
MAX_CANDIDATES = 10_000
"""How many unneeded objects, and uploads, are kept in mind from one pass to the next; further ones wait for their turn."""
_PARTY = ("", "objects")


class ObjectCollector:
    """Collects, in the background of a server."""

    def __init__(self, db: Database, objects: ObjectStore, types: BlobTypes) -> None:
        self._db = db
        self._objects = objects
        self._types = types
        self._unneeded: list[StoredObject] = []
        self._closed: list[str] = []
        self._after = ""

    async def collect_forever(self) -> None:
        """Take a pass after every hour, until cancelled. Whoever stores bytes refers to them within that time."""
        await asyncio.sleep(PASS_SECONDS)
        await take_passes(self._db, self._collect, "objects_not_collected")

    async def _collect(self) -> None:
        try:
            removed = await self.take_pass()
        except BlobTypeNotInstalled as error:
            log.warning("objects_not_collected", reason=str(error))
        else:
            if removed:
                log.info("objects_collected", objects=removed)

    async def take_pass(self) -> int:
        """Remove what the last pass found unneeded and still is; return how many objects. Then look for more.

        Raises BlobTypeNotInstalled when a type may need objects and cannot be asked.
        """
        async with self._db.scan(_PARTY, patient=True) as tx:
            for name in await blob_store.all_types(tx):
                await self._types.require_installed(tx, name)
        await self._objects.sweep()
        removed = await self._remove_objects()
        await self._remove_uploads()
        await self._look_for_objects()
        await self._look_for_uploads()
        return removed

    async def _remove_objects(self) -> int:
        removed, candidates = 0, self._unneeded
        self._unneeded = []
        for at in range(0, len(candidates), AT_ONCE):
            for stored in await self._without_need(candidates[at : at + AT_ONCE]):
                removed += await self._objects.delete(stored)
        return removed

    async def _remove_uploads(self) -> None:
        candidates, self._closed = self._closed, []
        for at in range(0, len(candidates), AT_ONCE):
            for upload_id in await self._not_open(candidates[at : at + AT_ONCE]):
                await self._objects.discard(upload_id)

    async def _look_for_objects(self) -> None:
        """Go on where the last pass has stopped, until there are no more, or enough unneeded ones."""
        while len(self._unneeded) < MAX_CANDIDATES:
            page = await self._objects.page(self._after, AT_ONCE)
            self._after = page[-1].digest if len(page) == AT_ONCE else ""
            self._unneeded += await self._without_need(page)
            if not self._after:
                return

    async def _look_for_uploads(self) -> None:
        after, page = "", [""]
        while page and len(self._closed) < MAX_CANDIDATES:
            page = await self._objects.uploads(after, AT_ONCE)
            self._closed += await self._not_open(page)
            after = page[-1] if page else ""

    async def _without_need(self, some: Sequence[StoredObject]) -> list[StoredObject]:
        """Those of some objects that nothing refers to."""
        async with self._db.scan(_PARTY, patient=True) as tx:
            needed = await self._needed(tx, [stored.digest for stored in some])
        return [stored for stored in some if stored.digest not in needed]

    async def _needed(self, tx: Transaction, digests: Sequence[str]) -> set[str]:
        in_content = await content_store.find_held(tx, digests)
        of_operations = await operation_store.digests_needed(tx, digests)
        return in_content | of_operations | await self._types.objects_in_use(tx, digests)

    async def _not_open(self, upload_ids: Sequence[str]) -> list[str]:
        """Those of some uploads that no type has open."""
        async with self._db.scan(_PARTY, patient=True) as tx:
            still_open = await self._types.uploads_open(tx, upload_ids)
        return [upload_id for upload_id in upload_ids if upload_id not in still_open]
