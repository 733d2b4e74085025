"""Collects what deletions have left: rows of blobs and organizations that are not there any more.

It goes by transactions of a few hundred rows each, and other writers have theirs in between. What is collected is what no
call can reach, so nobody sees how far it has come, and a server that is killed goes on at its next start. Several
servers on one database each work on other deletions (`store/deletion.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import structlog

from blobhub_server.blobtypes.contract import DELETIONS
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.db.notify import Doorbell
from blobhub_server.db.parts import remove_in_order
from blobhub_server.errors import BlobTypeNotInstalled, StorageUnavailable
from blobhub_server.platform.store import alias as alias_store
from blobhub_server.platform.store import api_key as api_key_store
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import blob_event as blob_event_store
from blobhub_server.platform.store import content as content_store
from blobhub_server.platform.store import credential as credential_store
from blobhub_server.platform.store import deletion as store
from blobhub_server.platform.store import limit as limit_store
from blobhub_server.platform.store import member as member_store
from blobhub_server.platform.store import metadata as metadata_store
from blobhub_server.platform.store import operation as operation_store
from blobhub_server.platform.store import revision as revision_store
from blobhub_server.platform.store.deletion import Deletion

log = structlog.get_logger()

ROWS = 250
"""How many rows a transaction removes at most."""
DELETIONS_AT_ONCE = 50
"""How many blobs a statement looks at: some hold nothing of what it removes, and it passes over them."""
LOOK_SECONDS = 30.0
"""How often it looks without being rung: another server that worked on something may have gone down."""

OF_BLOBS = (
    api_key_store,
    member_store,
    credential_store,
    alias_store,
    limit_store,
    metadata_store,
    content_store,
    revision_store,
    blob_event_store,
    operation_store,
)
"""What the platform keeps for blobs, rows before those that they refer to."""
OF_ORGANIZATIONS = (api_key_store, member_store, credential_store, alias_store, limit_store)
"""What it keeps for organizations, beside their blobs."""


class Collector:
    """Collects, in the background of a server."""

    def __init__(self, db: Database, bell: Doorbell, types: BlobTypes) -> None:
        self._db = db
        self._bell = bell
        self._types = types
        self._current = Deletion(id="", type="")
        self._at_once = DELETIONS_AT_ONCE
        self._told: set[tuple[str, bool]] = set()

    async def collect_forever(self) -> None:
        """Collect what is left from before, and then whatever is marked, until cancelled. The blob types are open."""
        async with self._bell.listen(DELETIONS) as listener:
            while True:
                await self._collect_all()
                await listener.wait(LOOK_SECONDS)

    async def _collect_all(self) -> None:
        """Collect until nothing is left that this server can collect. Trouble of the storage is waited out."""
        after: str | None = ""
        attempt = 0
        while after is not None:
            try:
                following = await self._take_step(after)
            except StorageUnavailable as error:
                self._db.trouble.report(error)
                await self._db.trouble.pause(attempt)
                attempt += 1
            except Exception as error:
                after = self._pass_by(after, error)
                await self._db.trouble.pause(0)
            else:
                after, attempt = following, 0

    def _pass_by(self, after: str, error: Exception) -> str:
        """The id to go on after when something cannot be collected, because of an error in its type, say.

        It keeps no others from being collected: what was looked at together is taken one by one up to there.
        """
        if self._at_once > 1:
            self._at_once = 1
            return after
        self._at_once = DELETIONS_AT_ONCE
        self._tell_once(self._current, error)
        return max(after, self._current.id)

    async def _take_step(self, after: str) -> str | None:
        """Collect something in a transaction of its own. Answers as `_collect_some`."""
        return await self._db.transact(partial(self._collect_some, after))

    async def _collect_some(self, after: str, tx: Transaction) -> str | None:
        """Collect some rows of the first deletions after an id.

        Returns the id to go on after: the same, unless they cannot be collected here; None when there were no deletions.
        """
        claimed = await store.claim(tx, after=after, limit=self._at_once)
        if not claimed:
            return None
        self._current = claimed[0]
        same = [item.id for item in claimed if item.type == claimed[0].type]
        if claimed[0].type == "":
            await self._collect_organization(tx, claimed[0].id)
            return after
        try:
            removed = await self._collect_blobs(tx, claimed[0].type, same)
        except BlobTypeNotInstalled as error:
            self._tell_once(claimed[0], error)
            return claimed[0].id
        if removed < ROWS:
            await store.delete(tx, same)
        return after

    def _tell_once(self, deletion: Deletion, error: Exception) -> None:
        """Tell of the first deletion of each type that waits, which is looked at again every half minute."""
        foreseen = isinstance(error, BlobTypeNotInstalled)
        if (deletion.type, foreseen) in self._told:
            return
        self._told.add((deletion.type, foreseen))
        if foreseen:
            log.warning("deletion_waits", id=deletion.id, reason=str(error))
        else:
            log.error("not_collected", id=deletion.id, type=deletion.type, exc_info=error)

    async def _collect_blobs(self, tx: Transaction, type_: str, blob_ids: Sequence[str]) -> int:
        """Remove rows of blobs of one type; return how many. Raises BlobTypeNotInstalled."""
        of_platform = [partial(each.collect, tx, blob_ids) for each in OF_BLOBS]
        return await remove_in_order([partial(self._types.collect, tx, type_, blob_ids), *of_platform], ROWS)

    async def _collect_organization(self, tx: Transaction, organization_id: str) -> None:
        """Mark some blobs of an organization for themselves; when there are none any more, remove its own rows."""
        blobs = await blob_store.some_of_deleted(tx, organization_id, ROWS)
        if blobs:
            await store.insert(tx, [Deletion(id=blob_id, type=type_) for blob_id, type_ in blobs])
            await blob_store.delete(tx, [blob_id for blob_id, _ in blobs])
            return
        steps = [partial(each.collect, tx, [organization_id]) for each in OF_ORGANIZATIONS]
        if await remove_in_order(steps, ROWS) < ROWS:
            await store.delete(tx, [organization_id])
