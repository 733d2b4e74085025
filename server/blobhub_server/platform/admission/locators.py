"""Resolving references: from what a request says to the records, and to where roles on them are held."""

from __future__ import annotations

from dataclasses import dataclass, replace

from blobhub_server.blobtypes.contract import Located
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import InvalidReference, NotFound, Renamed
from blobhub_server.ids import is_uuid
from blobhub_server.platform.calls import BlobRevision, caller
from blobhub_server.platform.rules import reference as grammar
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.rules.reference import Reference
from blobhub_server.platform.rules.revision import Revision
from blobhub_server.platform.rules.user import User
from blobhub_server.platform.store import alias as alias_store
from blobhub_server.platform.store import api_key as api_key_store
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import credential as credential_store
from blobhub_server.platform.store import organization as organization_store
from blobhub_server.platform.store import revision as revision_store
from blobhub_server.platform.store import user as user_store


@dataclass(frozen=True, slots=True)
class Found:
    """A blob or an organization that a reference leads to; `renamed` is its reference of today, when it was an old one."""

    place: Located
    renamed: str = ""


class Locators:
    """The platform's kinds of resource, each a function from a field's value to `Located`, or None.

    A revision that is absent inside a blob that is there is located all the same, with the NotFound as its resource:
    the gate raises it once it knows that the caller may see the blob. So are a draft that is one of several, and what was
    renamed.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    async def organization(self, value: str) -> Located | None:
        """An organization by alias or id."""
        reference = grammar.parse("organization", "organization", value)
        async with self._db.read() as tx:
            return _answer("organization", value, await _organization(tx, reference))

    async def blob(self, value: str) -> Located | None:
        """A blob by `organization/alias` or id."""
        reference = grammar.parse("blob", "blob", value)
        async with self._db.read() as tx:
            return _answer("blob", value, await _blob(tx, reference))

    async def revision(self, value: str) -> Located | None:
        """A revision by `organization/alias@version` or id."""
        reference = grammar.parse("revision", "revision", value)
        async with self._db.read() as tx:
            return await _revision(tx, reference, "revision", value)

    async def scope(self, value: str) -> Located | None:
        """An organization or a blob."""
        reference = grammar.parse("scope", "scope", value)
        async with self._db.read() as tx:
            return await _scope(tx, reference, value)

    async def target(self, value: str) -> Located | None:
        """A blob or a revision."""
        reference = grammar.parse("target", "target", value)
        async with self._db.read() as tx:
            if reference.id and not reference.version:
                blob = await blob_store.get(tx, reference.id)
                return _at(blob) if blob else await _revision(tx, reference, "target", value)
            if reference.version:
                return await _revision(tx, reference, "target", value)
            return _answer("blob", value, await _blob(tx, reference))

    async def user(self, value: str) -> Located | None:
        """A user; `@me` is the caller's."""
        reference = grammar.parse("user", "user", value)
        async with self._db.read() as tx:
            found = await user_of(tx, reference)
        return None if found is None else Located("", None, False, found, user_id=found.id)

    async def owner(self, value: str) -> Located | None:
        """An organization, a blob or a user."""
        reference = grammar.parse("owner", "owner", value)
        async with self._db.read() as tx:
            found = None if reference.user else await _scope(tx, reference, value)
            if found is not None or not (reference.user or reference.id):
                return found
        return await self.user(value)

    async def audit_scope(self, value: str) -> Located | None:
        """An organization, a blob, or the whole server, which is nobody's but its administrators'."""
        if grammar.parse("audit_scope", "scope", value).organization == grammar.EVERYWHERE:
            return Located("", None, False, None)
        return await self.scope(value)

    async def api_key(self, value: str) -> Located | None:
        """A key, by its id."""
        async with self._db.read() as tx:
            key = await api_key_store.get(tx, value)
        return None if key is None else Located(key.org_id or "", key.blob_id, False, key, key.user_id)

    async def credential(self, value: str) -> Located | None:
        """A credential, by its id."""
        async with self._db.read() as tx:
            found = await credential_store.get(tx, value)
        return None if found is None else Located(found.org_id or "", found.blob_id, False, found, found.user_id)


def _answer(kind: str, value: str, found: Found | None) -> Located | None:
    if found is None or not found.renamed:
        return found.place if found else None
    return replace(found.place, resource=Renamed(kind, value, found.renamed))


def _at(blob: Blob) -> Located:
    return Located(blob.org_id, blob.id, blob.public, blob)


def _in(organization: Organization) -> Located:
    return Located(organization.id, None, organization.public, organization)


async def _organization(tx: Transaction, reference: Reference) -> Found | None:
    found = await organization_store.find(tx, id_=reference.id, alias=reference.organization)
    if found is not None:
        return Found(_in(found))
    holder = None if reference.id else await alias_store.holder(tx, "", reference.organization)
    former = None if holder is None else await organization_store.find(tx, id_=holder)
    return None if former is None else Found(_in(former), former.alias)


async def _blob(tx: Transaction, reference: Reference) -> Found | None:
    if reference.id:
        by_id = await blob_store.get(tx, reference.id)
        return Found(_at(by_id)) if by_id else None
    blob = await blob_store.find(tx, reference.organization, reference.blob, by_id=is_uuid(reference.organization))
    return Found(_at(blob)) if blob else await _renamed_blob(tx, reference)


async def _renamed_blob(tx: Transaction, reference: Reference) -> Found | None:
    """A blob by an alias that it, or its organization, has given up."""
    by_id = is_uuid(reference.organization)
    part = Reference(id=reference.organization) if by_id else Reference(organization=reference.organization)
    found = await _organization(tx, part)
    if found is None:
        return None
    organization: Organization = found.place.resource
    blob = await blob_store.find(tx, organization.id, reference.blob, by_id=True)
    if blob is None:
        holder = await alias_store.holder(tx, organization.id, reference.blob)
        blob = None if holder is None else await blob_store.get(tx, holder)
    return None if blob is None else Found(_at(blob), f"{organization.alias}/{blob.alias}")


async def _revision(tx: Transaction, reference: Reference, field: str, value: str) -> Located | None:
    version, revision = reference.version, None
    if reference.id and not version:
        revision, version = await revision_store.get(tx, reference.id), grammar.DEFAULT
        reference = replace(reference, id=revision.blob_id if revision else reference.id)
    found = await _blob(tx, reference)
    if found is None:
        return None
    if found.renamed:
        return replace(found.place, resource=Renamed("blob", value, f"{found.renamed}@{version}"))
    blob: Blob = found.place.resource
    try:
        revision = revision or await version_of(tx, blob, version, field)
    except InvalidReference as several:
        return replace(found.place, resource=several)
    resource = NotFound("revision", value) if revision is None else BlobRevision(blob, revision)
    return replace(found.place, resource=resource)


async def _scope(tx: Transaction, reference: Reference, value: str) -> Located | None:
    if not reference.blob:
        found = _answer("organization", value, await _organization(tx, reference))
        if found is not None or not reference.id:
            return found
    return _answer("blob", value, await _blob(tx, reference))


async def user_of(tx: Transaction, reference: Reference) -> User | None:
    """The user that a reference names."""
    if reference.user == grammar.ME:
        mine = caller().user_id
        return None if mine is None else await user_store.get(tx, mine)
    if reference.user:
        return await user_store.named(tx, reference.user)
    return await user_store.get(tx, reference.id)


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
