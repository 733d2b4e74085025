"""Default revisions: what `@default`, and a reference without a version, mean."""

from __future__ import annotations

from blobhub.v1 import blob_event_pb2 as events

from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.engine import Transaction
from blobhub_server.platform.blobs.events import BlobEvents
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.revision import DRAFT, Revision
from blobhub_server.platform.store import blob as store


class DefaultRevisions:
    """Moves the default pointers of blobs."""

    def __init__(self, host: Host, types: BlobTypes, blob_events: BlobEvents) -> None:
        self._host = host
        self._types = types
        self._events = blob_events

    async def move(self, tx: Transaction, blob: Blob, revision: Revision) -> None:
        """Point a locked blob at another of its revisions, unless it points there; tell its type.

        Do this last of what the transaction does to the blob. Raises BlobTypeNotInstalled, and what the type raises.
        """
        if blob.default_revision_id == revision.id:
            return
        now, etag = self._host.clock(), self._host.ids()
        await store.update(tx, blob.id, default_revision_id=revision.id, update_time=now, etag=etag)
        changed = events.DefaultRevisionChanged(revision_id=revision.id)
        shows_draft = revision.phase == DRAFT
        await self._events.append(tx, blob.id, shows_draft=shows_draft, default_revision_changed=changed)
        await self._types.default_moved(tx, blob.type, blob.id, revision.id)
