"""Locators: from a reference in a request to its record, and to the place where roles on it are held."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic

from blobhub_server.blobtypes.access import NOWHERE, Caller, Place, Resolution, Resource_co, Role
from blobhub_server.blobtypes.contract import RevisionView
from blobhub_server.blobtypes.values import QueueView
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import AmbiguousReference, NotFound, Renamed
from blobhub_server.ids import NOTHING, is_uuid
from blobhub_server.platform.admission.roles import Roles
from blobhub_server.platform.rules import reference as grammar
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.rules.reference import Reference
from blobhub_server.platform.rules.revision import DRAFT, Revision
from blobhub_server.platform.rules.user import User
from blobhub_server.platform.store import alias as alias_store
from blobhub_server.platform.store import api_key as api_key_store
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import credential as credential_store
from blobhub_server.platform.store import operation as operation_store
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
    the caller may see the blob. The same is done for an ambiguous `@draft`.

    How many statements a locator runs depends on the form of the reference alone: a caller who may not see a thing must not
    learn from the time that its refusal takes whether it exists. So an id is looked up in all tables it may be in, and
    `NOTHING` is looked up in place of what was not found. `Absence` finds what was renamed.
    """

    def __init__(self, db: Database, roles: Roles) -> None:
        self._db = db
        self._roles = roles

    async def organization(self, value: str, caller: Caller) -> Resolution[object] | None:
        """An organization by alias or id."""
        reference = grammar.parse("organization", "organization", value)
        async with self._db.read() as tx:
            return _resolution(await _organization(tx, reference))

    async def blob(self, value: str, caller: Caller) -> Resolution[object] | None:
        """A blob by `organization/alias` or id."""
        reference = grammar.parse("blob", "blob", value)
        async with self._db.read() as tx:
            return _resolution(await named_blob(tx, reference))

    async def locate(self, value: str, caller: Caller) -> Resolution[BlobRevision] | None:
        """A revision by `organization/alias@version` or id. Implements `blobtypes.contract.Revisions`."""
        reference = grammar.parse("revision", "revision", value)
        async with self._db.read() as tx:
            found = await _revision(tx, reference, "revision", value)
        return await self._shown(found, caller, reference, value)

    async def _shown(
        self, found: Resolution[BlobRevision] | None, caller: Caller, reference: Reference, value: str
    ) -> Resolution[BlobRevision] | None:
        """A revision as a caller sees it: whoever reads a public blob without a role never sees a draft.

        To them the default revision is the latest commit or snapshot while it is a draft. A draft's id alone is like one
        that does not exist, and a version that is a draft like one that the blob does not have.
        """
        if found is None or not found.place.public:
            return found
        revision = found.resource if isinstance(found.resource, BlobRevision) else None
        draft = revision is not None and revision.phase == DRAFT
        if not reference.version:
            return replace(found, place=replace(found.place, public=False), never_public=True) if draft else found
        if not draft and reference.version != grammar.DRAFT and not is_uuid(reference.version):
            return found
        if await self._roles.held_role(caller, found.place) is not Role.NONE:
            return found
        if not draft and revision is not None:
            return found
        latest = None
        if revision is not None and reference.version == grammar.DEFAULT:
            async with self._db.read() as tx:
                latest = await revision_store.get_latest(tx, revision.blob_id)
        absent = NotFound("revision", value)
        return replace(found, resource=BlobRevision.from_records(revision.blob, latest) if revision and latest else absent)

    async def resolve(self, tx: Transaction, reference: str) -> Resolution[BlobRevision] | None:
        """Implements `blobtypes.contract.Revisions`."""
        parsed = grammar.parse("revision", "revision", reference)
        found = await _revision(tx, parsed, "revision", reference)
        if found is not None or not parsed.blob:
            return found
        former = await former_blob(tx, parsed, await named_organization(tx, parsed))
        if former is None:
            return None
        return Resolution(place=former.place, resource=Renamed("blob", reference, f"{former.renamed}@{parsed.version}"))

    async def organization_or_blob(self, value: str, caller: Caller) -> Resolution[object] | None:
        """An organization or a blob."""
        reference = grammar.parse("organization_or_blob", "parent", value)
        async with self._db.read() as tx:
            return await _organization_or_blob(tx, reference)

    async def blob_or_revision(self, value: str, caller: Caller) -> Resolution[object] | None:
        """A blob or a revision."""
        reference = grammar.parse("blob_or_revision", "parent", value)
        async with self._db.read() as tx:
            if reference.version:
                blob, revision = None, await _revision(tx, reference, "parent", value)
            else:
                blob = await named_blob(tx, reference)
                revision = await _revision_by_id(tx, reference.id) if reference.id else None
        return await self._shown(revision, caller, reference, value) if blob is None else _resolution(blob)

    async def user(self, value: str, caller: Caller) -> Resolution[object] | None:
        """A user; `@me` is the caller's."""
        reference = grammar.parse("user", "user", value)
        async with self._db.read() as tx:
            found = await user_of(tx, reference, caller)
        return None if found is None else Resolution(place=Place(user_id=found.id), resource=found)

    async def organization_blob_or_user(self, value: str, caller: Caller) -> Resolution[object] | None:
        """An organization, a blob or a user."""
        reference = grammar.parse("organization_blob_or_user", "parent", value)
        async with self._db.read() as tx:
            found = None if reference.user else await _organization_or_blob(tx, reference)
            if not (reference.user or reference.id):
                return found
        user = await self.user(value, caller)
        return user if found is None else found

    async def organization_blob_or_server(self, value: str, caller: Caller) -> Resolution[object] | None:
        """An organization, a blob, or the whole server, which only administrators may read."""
        if grammar.parse("organization_blob_or_server", "parent", value).organization == grammar.EVERYWHERE:
            return Resolution(place=NOWHERE, resource=None)
        return await self.organization_or_blob(value, caller)

    async def queue(self, value: str, caller: Caller) -> Resolution[object] | None:
        """A queue of an organization's. Every name is one's: a queue is there once it is named."""
        reference = grammar.parse("queue", "queue", value)
        async with self._db.read() as tx:
            by_id = is_uuid(reference.organization)
            found = await organization_store.find(
                tx, id_=reference.organization if by_id else "", alias="" if by_id else reference.organization
            )
        if found is None:
            return None
        named = QueueView(organization_id=found.id, name=reference.queue)
        place = Place(organization_id=found.id, queue=named.name)
        return Resolution(place=place, resource=named, never_public=True)

    async def api_key(self, value: str, caller: Caller) -> Resolution[object] | None:
        """A key, by its id."""
        async with self._db.read() as tx:
            key = await api_key_store.get(tx, value.lower())
        return (
            None
            if key is None
            else Resolution(
                place=Place(organization_id=key.organization_id or "", blob_id=key.blob_id, user_id=key.user_id),
                resource=key,
                seen_by=Role.ADMIN if key.user_id is None else Role.READ,
                never_public=True,
            )
        )

    async def credential(self, value: str, caller: Caller) -> Resolution[object] | None:
        """A credential, by its id."""
        async with self._db.read() as tx:
            found = await credential_store.get(tx, value.lower())
        return (
            None
            if found is None
            else Resolution(
                place=Place(organization_id=found.organization_id or "", blob_id=found.blob_id, user_id=found.user_id),
                resource=found,
                seen_by=Role.ADMIN if found.user_id is None else Role.READ,
                never_public=True,
            )
        )

    async def operation(self, value: str, caller: Caller) -> Resolution[object] | None:
        """An operation, by its id."""
        async with self._db.read() as tx:
            found = await operation_store.get(tx, value.lower())
        if found is None:
            return None
        place = Place(organization_id=found.organization_id, blob_id=found.blob_id)
        return Resolution(place=place, resource=found, never_public=True)


def _resolution(found: Match[object] | None) -> Resolution[object] | None:
    return None if found is None else Resolution(place=found.place, resource=found.resource)


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
    return None if found is None else _match_organization(found)


async def named_blob(tx: Transaction, reference: Reference) -> Match[Blob] | None:
    """The blob that a reference names by id, or by its alias of today."""
    if reference.id:
        blob = await blob_store.get(tx, reference.id)
    else:
        blob = await blob_store.find(tx, reference.organization, reference.blob, by_id=is_uuid(reference.organization))
    return None if blob is None else _match_blob(blob)


async def named_organization(tx: Transaction, reference: Reference) -> Match[Organization] | None:
    """The organization that a reference names by id, alias or former alias; `renamed` is set for the last."""
    if is_uuid(reference.organization):
        return await _organization(tx, Reference(id=reference.organization))
    found = await _organization(tx, Reference(organization=reference.organization))
    holder = await alias_store.find_former_holder(tx, "", reference.organization)
    former = await organization_store.find(tx, id_=holder or NOTHING)
    return found if found is not None or former is None else _match_organization(former, former.alias)


async def former_blob(tx: Transaction, reference: Reference, named: Match[Organization] | None) -> Match[Blob] | None:
    """The blob that a reference names by a former alias of its own, or of its organization, which is `named`."""
    organization_id = NOTHING if named is None else named.resource.id
    blob_id = await blob_store.find_id(tx, organization_id, reference.blob)
    holder = await alias_store.find_former_holder(tx, organization_id, reference.blob)
    if named is not None and named.renamed:
        holder = blob_id or holder
    former = await blob_store.get(tx, holder or NOTHING)
    return None if named is None or former is None else _match_blob(former, f"{named.resource.alias}/{former.alias}")


async def _revision(tx: Transaction, reference: Reference, field: str, value: str) -> Resolution[BlobRevision] | None:
    by_id, several = None, None
    if reference.id and not reference.version:
        by_id = await revision_store.get(tx, reference.id)
        reference = replace(reference, id=by_id.blob_id if by_id else reference.id)
    found = await named_blob(tx, reference)
    of = (NOTHING, NOTHING) if found is None else (found.resource.id, found.resource.default_revision_id)
    try:
        by_version = await _version_of(tx, *of, reference.version or grammar.DEFAULT, field)
    except AmbiguousReference as error:
        by_version, several = None, error
    if found is None:
        return None
    revision = by_id or by_version
    absent = several or NotFound("revision", value)
    resource = absent if revision is None else BlobRevision.from_records(found.resource, revision)
    return Resolution(place=found.place, resource=resource)


async def _revision_by_id(tx: Transaction, revision_id: str) -> Resolution[BlobRevision] | None:
    revision = await revision_store.get(tx, revision_id)
    blob = await blob_store.get(tx, NOTHING if revision is None else revision.blob_id)
    if revision is None or blob is None:
        return None
    return Resolution(place=_match_blob(blob).place, resource=BlobRevision.from_records(blob, revision))


async def _organization_or_blob(tx: Transaction, reference: Reference) -> Resolution[object] | None:
    if reference.blob:
        return _resolution(await named_blob(tx, reference))
    organization = await _organization(tx, reference)
    blob = await named_blob(tx, reference) if reference.id else None
    return _resolution(blob if organization is None else organization)


async def user_of(tx: Transaction, reference: Reference, caller: Caller) -> User | None:
    """The user that a reference of a caller's names."""
    if reference.user == grammar.ME:
        return None if caller.user_id is None else await user_store.get(tx, caller.user_id)
    if reference.user:
        return await user_store.get_by_name(tx, reference.user)
    return await user_store.get(tx, reference.id)


async def version_of(tx: Transaction, blob: Blob, version: str, field: str) -> Revision | None:
    """A blob's revision by `default`, `draft`, `latest`, a number or an id.

    Raises AmbiguousReference for `draft` when there are several drafts: one of them has to be named by its id.
    """
    return await _version_of(tx, blob.id, blob.default_revision_id, version, field)


async def _version_of(tx: Transaction, blob_id: str, default_id: str, version: str, field: str) -> Revision | None:
    if version == grammar.DEFAULT:
        return await revision_store.get(tx, default_id)
    if version == grammar.LATEST:
        return await revision_store.get_latest(tx, blob_id)
    if version == grammar.DRAFT:
        drafts = await revision_store.drafts(tx, blob_id, 2)
        if len(drafts) > 1:
            raise AmbiguousReference(field, "the blob has several drafts; name one of them by its id")
        return drafts[0] if drafts else None
    if is_uuid(version):
        found = await revision_store.get(tx, version)
        return found if found is not None and found.blob_id == blob_id else None
    return await revision_store.get_snapshot(tx, blob_id, int(version))
