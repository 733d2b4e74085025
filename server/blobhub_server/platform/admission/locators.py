"""Locators: from a reference in a request to its record, and to the place where roles on it are held."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic

from blobhub_server.blobtypes.access import NOWHERE, Caller, Place, Resolution, Resource_co
from blobhub_server.blobtypes.contract import RevisionView
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import InvalidReference, NotFound, Renamed
from blobhub_server.ids import is_uuid
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
class BlobRevision(RevisionView):
    """What a reference to a revision leads to."""

    blob: Blob
    revision: Revision

    @classmethod
    def from_records(cls, blob: Blob, revision: Revision) -> BlobRevision:
        """A revision of a blob."""
        return cls(
            id=revision.id,
            blob_id=blob.id,
            organization_id=blob.organization_id,
            blob_type=blob.type,
            phase=revision.phase,
            etag=revision.etag,
            blob=blob,
            revision=revision,
        )


@dataclass(frozen=True, slots=True)
class Match(Generic[Resource_co]):
    """A blob or an organization that a reference leads to; `renamed` is its current reference if the given one is former."""

    place: Place
    resource: Resource_co
    renamed: str = ""


class Locators:
    """The locators of the platform's kinds of resource. Each returns None when there is no such place.

    A revision that does not exist in an existing blob is resolved to a NotFound, which the gate raises once it knows that
    the caller may see the blob. The same is done for an ambiguous `@draft`, and for what was renamed.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    async def organization(self, value: str, caller: Caller) -> Resolution[object] | None:
        """An organization by alias or id."""
        reference = grammar.parse("organization", "organization", value)
        async with self._db.read() as tx:
            return _resolution("organization", value, await _organization(tx, reference))

    async def blob(self, value: str, caller: Caller) -> Resolution[object] | None:
        """A blob by `organization/alias` or id."""
        reference = grammar.parse("blob", "blob", value)
        async with self._db.read() as tx:
            return _resolution("blob", value, await _blob(tx, reference))

    async def revision(self, value: str, caller: Caller) -> Resolution[object] | None:
        """A revision by `organization/alias@version` or id."""
        reference = grammar.parse("revision", "revision", value)
        async with self._db.read() as tx:
            return await _revision(tx, reference, "revision", value)

    async def resolve(self, tx: Transaction, reference: str) -> Resolution[BlobRevision] | None:
        """Implements `blobtypes.contract.Revisions`."""
        return await _revision(tx, grammar.parse("revision", "revision", reference), "revision", reference)

    async def organization_or_blob(self, value: str, caller: Caller) -> Resolution[object] | None:
        """An organization or a blob."""
        reference = grammar.parse("organization_or_blob", "parent", value)
        async with self._db.read() as tx:
            return await _organization_or_blob(tx, reference, value)

    async def blob_or_revision(self, value: str, caller: Caller) -> Resolution[object] | None:
        """A blob or a revision."""
        reference = grammar.parse("blob_or_revision", "parent", value)
        async with self._db.read() as tx:
            if reference.id and not reference.version:
                blob = await blob_store.get(tx, reference.id)
                return Resolution(_match_blob(blob).place, blob) if blob else await _revision(tx, reference, "parent", value)
            if reference.version:
                return await _revision(tx, reference, "parent", value)
            return _resolution("blob", value, await _blob(tx, reference))

    async def user(self, value: str, caller: Caller) -> Resolution[object] | None:
        """A user; `@me` is the caller's."""
        reference = grammar.parse("user", "user", value)
        async with self._db.read() as tx:
            found = await user_of(tx, reference, caller)
        return None if found is None else Resolution(Place(user_id=found.id), found)

    async def organization_blob_or_user(self, value: str, caller: Caller) -> Resolution[object] | None:
        """An organization, a blob or a user."""
        reference = grammar.parse("organization_blob_or_user", "parent", value)
        async with self._db.read() as tx:
            found = None if reference.user else await _organization_or_blob(tx, reference, value)
            if found is not None or not (reference.user or reference.id):
                return found
        return await self.user(value, caller)

    async def organization_blob_or_server(self, value: str, caller: Caller) -> Resolution[object] | None:
        """An organization, a blob, or the whole server, which only administrators may read."""
        if grammar.parse("organization_blob_or_server", "parent", value).organization == grammar.EVERYWHERE:
            return Resolution(NOWHERE, None)
        return await self.organization_or_blob(value, caller)

    async def api_key(self, value: str, caller: Caller) -> Resolution[object] | None:
        """A key, by its id."""
        async with self._db.read() as tx:
            key = await api_key_store.get(tx, value)
        return (
            None
            if key is None
            else Resolution(Place(organization_id=key.organization_id or "", blob_id=key.blob_id, user_id=key.user_id), key)
        )

    async def credential(self, value: str, caller: Caller) -> Resolution[object] | None:
        """A credential, by its id."""
        async with self._db.read() as tx:
            found = await credential_store.get(tx, value)
        return (
            None
            if found is None
            else Resolution(
                Place(organization_id=found.organization_id or "", blob_id=found.blob_id, user_id=found.user_id), found
            )
        )


def _resolution(kind: str, value: str, found: Match[object] | None) -> Resolution[object] | None:
    if found is None:
        return None
    return Resolution(found.place, Renamed(kind, value, found.renamed) if found.renamed else found.resource)


def _match_blob(blob: Blob, renamed: str = "") -> Match[Blob]:
    return Match(
        place=Place(organization_id=blob.organization_id, blob_id=blob.id, public=blob.public),
        resource=blob,
        renamed=renamed,
    )


def _match_organization(organization: Organization, renamed: str = "") -> Match[Organization]:
    return Match(
        place=Place(organization_id=organization.id, public=organization.public), resource=organization, renamed=renamed
    )


async def _organization(tx: Transaction, reference: Reference) -> Match[Organization] | None:
    found = await organization_store.find(tx, id_=reference.id, alias=reference.organization)
    if found is not None:
        return _match_organization(found)
    holder = None if reference.id else await alias_store.find_former_holder(tx, "", reference.organization)
    former = None if holder is None else await organization_store.find(tx, id_=holder)
    return None if former is None else _match_organization(former, former.alias)


async def _blob(tx: Transaction, reference: Reference) -> Match[Blob] | None:
    if reference.id:
        by_id = await blob_store.get(tx, reference.id)
        return _match_blob(by_id) if by_id else None
    blob = await blob_store.find(tx, reference.organization, reference.blob, by_id=is_uuid(reference.organization))
    return _match_blob(blob) if blob else await _renamed_blob(tx, reference)


async def _renamed_blob(tx: Transaction, reference: Reference) -> Match[Blob] | None:
    """A blob by a former alias of the blob or its organization."""
    by_id = is_uuid(reference.organization)
    part = Reference(id=reference.organization) if by_id else Reference(organization=reference.organization)
    found = await _organization(tx, part)
    if found is None:
        return None
    organization = found.resource
    blob = await blob_store.find(tx, organization.id, reference.blob, by_id=True)
    if blob is None:
        holder = await alias_store.find_former_holder(tx, organization.id, reference.blob)
        blob = None if holder is None else await blob_store.get(tx, holder)
    return None if blob is None else _match_blob(blob, f"{organization.alias}/{blob.alias}")


async def _revision(tx: Transaction, reference: Reference, field: str, value: str) -> Resolution[BlobRevision] | None:
    version, revision = reference.version, None
    if reference.id and not version:
        revision, version = await revision_store.get(tx, reference.id), grammar.DEFAULT
        reference = replace(reference, id=revision.blob_id if revision else reference.id)
    found = await _blob(tx, reference)
    if found is None:
        return None
    if found.renamed:
        return Resolution(found.place, Renamed("blob", value, f"{found.renamed}@{version}"))
    blob = found.resource
    try:
        revision = revision or await version_of(tx, blob, version, field)
    except InvalidReference as several:
        return Resolution(found.place, several)
    return Resolution(
        found.place, NotFound("revision", value) if revision is None else BlobRevision.from_records(blob, revision)
    )


async def _organization_or_blob(tx: Transaction, reference: Reference, value: str) -> Resolution[object] | None:
    if not reference.blob:
        found = _resolution("organization", value, await _organization(tx, reference))
        if found is not None or not reference.id:
            return found
    return _resolution("blob", value, await _blob(tx, reference))


async def user_of(tx: Transaction, reference: Reference, caller: Caller) -> User | None:
    """The user that a reference of a caller's names."""
    if reference.user == grammar.ME:
        return None if caller.user_id is None else await user_store.get(tx, caller.user_id)
    if reference.user:
        return await user_store.get_by_name(tx, reference.user)
    return await user_store.get(tx, reference.id)


async def version_of(tx: Transaction, blob: Blob, version: str, field: str) -> Revision | None:
    """A blob's revision by `default`, `draft`, `latest`, a number or an id.

    Raises InvalidReference for `draft` when there are several drafts: one of them has to be named by its id.
    """
    if version == grammar.DEFAULT:
        return await revision_store.get(tx, blob.default_revision_id)
    if version == grammar.LATEST:
        return await revision_store.get_latest(tx, blob.id)
    if version == grammar.DRAFT:
        drafts = await revision_store.drafts(tx, blob.id, 2)
        if len(drafts) > 1:
            raise InvalidReference(field, "the id of one of the blob's several drafts")
        return drafts[0] if drafts else None
    if is_uuid(version):
        found = await revision_store.get(tx, version)
        return found if found is not None and found.blob_id == blob.id else None
    return await revision_store.get_snapshot(tx, blob.id, int(version))
