"""Resolving references: from what a request says to the records, and to where roles on them are held."""

from __future__ import annotations

from blobhub_server.blobtypes.contract import Located
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import InvalidReference, NotFound
from blobhub_server.ids import is_uuid
from blobhub_server.platform.calls import BlobRevision
from blobhub_server.platform.rules import reference as grammar
from blobhub_server.platform.rules.blob import PUBLIC, Blob
from blobhub_server.platform.rules.reference import Reference
from blobhub_server.platform.rules.revision import Revision
from blobhub_server.platform.store import api_key as api_key_store
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import organization as organization_store
from blobhub_server.platform.store import revision as revision_store


class Locators:
    """The platform's kinds of resource, each a function from a field's value to `Located`, or None.

    A revision that is absent inside a blob that is there is located all the same, with the NotFound as its resource:
    the gate raises it once it knows that the caller may see the blob.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    async def organization(self, value: str) -> Located | None:
        """An organization by alias or id."""
        reference = grammar.parse("organization", "organization", value)
        async with self._db.read() as tx:
            found = await organization_store.find(tx, id_=reference.id, alias=reference.organization)
        return None if found is None else Located(found.id, None, False, found)

    async def blob(self, value: str) -> Located | None:
        """A blob by `organization/alias` or id."""
        reference = grammar.parse("blob", "blob", value)
        async with self._db.read() as tx:
            return _at(await _blob(tx, reference))

    async def revision(self, value: str) -> Located | None:
        """A revision by `organization/alias@version` or id."""
        reference = grammar.parse("revision", "revision", value)
        async with self._db.read() as tx:
            if reference.id and not reference.version:
                revision = await revision_store.get(tx, reference.id)
                blob = await blob_store.get(tx, revision.blob_id if revision else reference.id)
                version = grammar.DEFAULT
            else:
                revision, blob, version = None, await _blob(tx, reference), reference.version
            if blob is None:
                return None
            if revision is None:
                revision = await version_of(tx, blob, version, "revision")
        found = NotFound("revision", value) if revision is None else BlobRevision(blob, revision)
        return Located(blob.org_id, blob.id, blob.visibility == PUBLIC, found)

    async def scope(self, value: str) -> Located | None:
        """An organization or a blob."""
        reference = grammar.parse("scope", "scope", value)
        async with self._db.read() as tx:
            if not reference.blob:
                found = await organization_store.find(tx, id_=reference.id, alias=reference.organization)
                if found is not None:
                    return Located(found.id, None, False, found)
            if not reference.blob and not reference.id:
                return None
            return _at(await _blob(tx, reference))

    async def api_key(self, value: str) -> Located | None:
        """A scoped key, by its id. Personal keys are nobody's but their user's, and are not found here."""
        async with self._db.read() as tx:
            key = await api_key_store.get(tx, value)
        return None if key is None or key.org_id is None else Located(key.org_id, key.blob_id, False, key)


def _at(blob: Blob | None) -> Located | None:
    return None if blob is None else Located(blob.org_id, blob.id, blob.visibility == PUBLIC, blob)


async def _blob(tx: Transaction, reference: Reference) -> Blob | None:
    if reference.id:
        return await blob_store.get(tx, reference.id)
    return await blob_store.find(tx, reference.organization, reference.blob, by_id=is_uuid(reference.organization))


async def version_of(tx: Transaction, blob: Blob, version: str, field: str) -> Revision | None:
    """A blob's revision by `default`, `draft`, a number or an id.

    Raises InvalidReference for `draft` when there are several: which one is meant has to be said by id.
    """
    if version == grammar.DEFAULT:
        return await revision_store.get(tx, blob.default_revision_id)
    if version == grammar.DRAFT:
        drafts = await revision_store.drafts(tx, blob.id, 2)
        if len(drafts) > 1:
            raise InvalidReference(field, "the id of one of the blob's several drafts")
        return drafts[0] if drafts else None
    if is_uuid(version):
        found = await revision_store.get(tx, version)
        return found if found is not None and found.blob_id == blob.id else None
    return await revision_store.numbered(tx, blob.id, int(version))
