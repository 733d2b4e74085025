"""The content of revisions, for blob types."""

from __future__ import annotations

from collections.abc import Collection

from blobhub_server.blobtypes.contract import Limits
from blobhub_server.blobtypes.etag import ANY, require_etag
from blobhub_server.blobtypes.values import Entry
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import AlreadyExists, ContentLost, NotFound
from blobhub_server.ids import Ids, canonical_id
from blobhub_server.objects.contract import ObjectNotFound, ObjectStore
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.revision import DRAFT, Revision, require_phase
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import content as store
from blobhub_server.platform.store import revision as revision_store
from blobhub_server.turnstile import Party


class Contents:
    """Implements `blobtypes.contract.Contents`."""

    def __init__(self, objects: ObjectStore, limits: Limits, clock: Clock, ids: Ids) -> None:
        self._objects = objects
        self._limits = limits
        self._clock = clock
        self._ids = ids

    async def upload(self, data: bytes) -> tuple[str, int]:
        return await self._objects.put(data), len(data)

    async def put(
        self,
        tx: Transaction,
        revision_id: str,
        name: str,
        stored: tuple[str, int],
        *,
        limit: str | None,
        etag: str = "",
        create_only: bool = False,
    ) -> tuple[Entry, str]:
        digest, size = stored
        now = self._clock()
        blob, revision, new_etag = await self._edit(tx, revision_id, etag)
        current = await store.find(tx, revision_id, name)
        if create_only and current is not None:
            raise AlreadyExists("entry", name)
        if etag == ANY and current is None:
            raise NotFound("entry", name)
        is_shared = await store.holds(tx, blob.id, digest)
        if current is None:
            entry = Entry(
                id=self._ids(),
                revision_id=revision_id,
                name=name,
                digest=digest,
                size=size,
                create_time=now,
                update_time=now,
            )
            await store.insert(tx, blob.id, entry)
            if limit is not None:
                await self._require(tx, blob, limit, revision.entries + 1)
            await revision_store.update(tx, revision_id, entries=revision.entries + 1)
        else:
            entry = Entry(
                id=current.id,
                revision_id=revision_id,
                name=name,
                digest=digest,
                size=size,
                create_time=current.create_time,
                update_time=now,
            )
            await store.replace(tx, entry.id, digest=digest, size=size, now=now)
        total = blob.bytes + (0 if is_shared else size) - await self._freed_bytes(tx, blob, current)
        if not is_shared:
            await self._require(tx, blob, "blob.bytes", total)
        await blob_store.update(tx, blob.id, bytes=total)
        return entry, new_etag

    async def _freed_bytes(self, tx: Transaction, blob: Blob, former: Entry | None) -> int:
        """How many bytes a blob no longer holds after an entry was replaced or removed."""
        return 0 if former is None or await store.holds(tx, blob.id, former.digest) else former.size

    async def _require(self, tx: Transaction, blob: Blob, limit: str, held: int) -> None:
        await self._limits.require(tx, limit, organization_id=blob.organization_id, blob_id=blob.id, held=held)

    async def delete(self, tx: Transaction, revision_id: str, name: str, *, etag: str = "") -> str:
        blob, revision, new_etag = await self._edit(tx, revision_id, etag)
        entry = await store.find(tx, revision_id, name)
        if entry is None:
            raise NotFound("entry", name)
        await store.delete(tx, entry.id)
        await revision_store.update(tx, revision_id, entries=revision.entries - 1)
        await blob_store.update(tx, blob.id, bytes=blob.bytes - await self._freed_bytes(tx, blob, entry))
        return new_etag

    async def discard(self, tx: Transaction, blob: Blob, revision_id: str) -> None:
        """Remove the content of a revision of a blob that the caller has locked."""
        await blob_store.update(tx, blob.id, bytes=blob.bytes - await store.unshared_bytes(tx, revision_id))
        await store.delete_all(tx, revision_id)

    async def _edit(self, tx: Transaction, revision_id: str, etag: str) -> tuple[Blob, Revision, str]:
        """Check that the revision may be edited, and give it a new etag. Locks the blob, whose bytes are counted."""
        found = await revision_store.get(tx, revision_id)
        blob = await blob_store.get(tx, found.blob_id, lock=True) if found else None
        revision = await revision_store.get(tx, revision_id, lock=True)
        if blob is None or revision is None:
            raise NotFound("revision", revision_id)
        require_phase(revision, DRAFT)
        require_etag(etag, revision.etag)
        new_etag = self._ids()
        await revision_store.update(tx, revision_id, etag=new_etag, update_time=self._clock())
        return blob, revision, new_etag

    async def pin(self, tx: Transaction, blob_id: str) -> bool:
        return await blob_store.pin(tx, blob_id)

    async def find(self, tx: Transaction, revision_id: str, name_or_id: str) -> Entry | None:
        return await store.find(tx, revision_id, canonical_id(name_or_id) or name_or_id)

    async def find_some(self, tx: Transaction, revision_id: str, names: Collection[str]) -> dict[str, Entry]:
        return await store.find_some(tx, revision_id, names)

    async def get(self, tx: Transaction, entry_id: str) -> Entry | None:
        return await store.get(tx, entry_id)

    async def list(
        self,
        tx: Transaction,
        revision_id: str,
        *,
        after: str = "",
        limit: int | None = None,
        prefix: str = "",
        descending: bool = False,
    ) -> list[Entry]:
        return await store.page(tx, revision_id, after=after, limit=limit, prefix=prefix, descending=descending)

    async def fullest(self, tx: Transaction, blob_id: str) -> int:
        return await revision_store.most_entries(tx, blob_id)

    async def largest(self, tx: Transaction, blob_id: str, name: str) -> int:
        return await store.most_bytes(tx, blob_id, name)

    async def read(self, digest: str) -> bytes:
        try:
            return await self._objects.get(digest)
        except ObjectNotFound:  # The entry exists, so the bytes were lost.
            raise ContentLost(digest) from None


class RevisionContent:
    """Implements `blobtypes.contract.Content` for one revision."""

    def __init__(self, db: Database, contents: Contents, revision_id: str, party: Party) -> None:
        self.party = party
        self._db = db
        self._contents = contents
        self._revision_id = revision_id

    async def list(self) -> list[Entry]:
        async with self._db.scan(self.party) as tx:
            return await self._contents.list(tx, self._revision_id)

    async def read(self, entry: Entry) -> bytes:
        return await self._contents.read(entry.digest)
