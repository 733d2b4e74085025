"""The content of revisions, as blob types get at it."""

from __future__ import annotations

from blobhub_server.blobtypes.contract import Entry
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import NotFound
from blobhub_server.ids import Ids
from blobhub_server.objects.contract import ObjectStore
from blobhub_server.platform.rules.etag import require_etag
from blobhub_server.platform.rules.revision import DRAFT, require_phase
from blobhub_server.platform.store import content as store
from blobhub_server.platform.store import revision as revision_store


class Contents:
    """Implements `blobtypes.contract.Contents`."""

    def __init__(self, objects: ObjectStore, clock: Clock, ids: Ids) -> None:
        self._objects = objects
        self._clock = clock
        self._ids = ids

    async def upload(self, data: bytes) -> tuple[str, int]:
        """See the contract."""
        return await self._objects.put(data), len(data)

    async def put(
        self, tx: Transaction, revision_id: str, name: str, stored: tuple[str, int], *, etag: str = ""
    ) -> tuple[Entry, str]:
        """See the contract."""
        digest, size = stored
        now = self._clock()
        new_etag = await self._edit(tx, revision_id, etag)
        current = await store.find(tx, revision_id, name)
        if current is None:
            entry = Entry(self._ids(), revision_id, name, digest, size, now, now)
            await store.insert(tx, entry)
        else:
            entry = Entry(current.id, revision_id, name, digest, size, current.create_time, now)
            await store.replace(tx, entry.id, digest=digest, size=size, now=now)
        return entry, new_etag

    async def delete(self, tx: Transaction, revision_id: str, name: str, *, etag: str = "") -> str:
        """See the contract."""
        new_etag = await self._edit(tx, revision_id, etag)
        entry = await store.find(tx, revision_id, name)
        if entry is None:
            raise NotFound("entry", name)
        await store.delete(tx, entry.id)
        return new_etag

    async def _edit(self, tx: Transaction, revision_id: str, etag: str) -> str:
        """Check that the revision may be edited, and give it a new etag."""
        revision = await revision_store.get(tx, revision_id, lock=True)
        if revision is None:
            raise NotFound("revision", revision_id)
        require_phase(revision, DRAFT)
        require_etag(etag, revision.etag)
        new_etag = self._ids()
        await revision_store.update(tx, revision_id, etag=new_etag, update_time=self._clock())
        return new_etag

    async def find(self, tx: Transaction, revision_id: str, name_or_id: str) -> Entry | None:
        """See the contract."""
        return await store.find(tx, revision_id, name_or_id)

    async def list(self, tx: Transaction, revision_id: str, *, after: str = "", limit: int | None = None) -> list[Entry]:
        """See the contract."""
        return await store.page(tx, revision_id, after=after, limit=limit)

    async def read(self, digest: str) -> bytes:
        """See the contract."""
        return await self._objects.get(digest)


class RevisionContent:
    """Implements `blobtypes.contract.Content` for one revision."""

    def __init__(self, db: Database, contents: Contents, revision_id: str) -> None:
        self._db = db
        self._contents = contents
        self._revision_id = revision_id

    async def list(self) -> list[Entry]:
        """See the contract."""
        async with self._db.read() as tx:
            return await self._contents.list(tx, self._revision_id)

    async def read(self, entry: Entry) -> bytes:
        """See the contract."""
        return await self._contents.read(entry.digest)
