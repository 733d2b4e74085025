"""What the model of the platform is made of: plain records, references that lead to them, and the roles of callers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

NONE, READ, WRITE, ADMIN = range(4)
PRIVATE, PUBLIC = 1, 2
DRAFT, COMMIT, SNAPSHOT = 1, 2, 3
PHASES = {DRAFT: "draft", COMMIT: "commit", SNAPSHOT: "snapshot"}
OF_REVISION, OF_BLOB = 1, 2
CURRENT = "current"
"""Stands for the etag that a thing has."""


class Refused(Exception):
    """A refusal: the name of its ErrorReason, and what the ErrorInfo carries."""

    def __init__(self, reason: str, **metadata: str) -> None:
        super().__init__(reason, metadata)
        self.reason, self.metadata = reason, metadata


@dataclass(frozen=True)
class Caller:
    """A user, by a personal key that gives at most a role. An anonymous caller has no user."""

    user: str
    most: int = ADMIN
    administrator: bool = False


@dataclass(eq=False, kw_only=True)
class Thing:
    id: str = ""
    etag: str = ""

    def shown(self) -> dict[str, Any]:
        """The fields of its message that the model knows."""
        return {name: value for name, value in vars(self).items() if isinstance(value, str | int)}


@dataclass(eq=False, kw_only=True)
class Member(Thing):
    user_name: str
    role: int

    def shown(self) -> dict[str, Any]:
        return {"user_name": self.user_name, "role": self.role, "etag": self.etag}


@dataclass(eq=False, kw_only=True)
class Record(Thing):
    """A metadata record."""

    key: str
    value: Any
    description: str = ""

    def shown(self) -> dict[str, Any]:
        return {"key": self.key, "value": self.value, "description": self.description, "etag": self.etag}


@dataclass(eq=False, kw_only=True)
class Holder(Thing):
    """An organization or a blob: it has an alias, and those it has given up; it may be public; roles are held on it."""

    alias: str
    former: set[str] = field(default_factory=set)
    description: str = ""
    visibility: int
    members: dict[str, Member] = field(default_factory=dict)


@dataclass(eq=False, kw_only=True)
class Revision(Thing):
    """`content` is document by alias, `sessions` the ids of those that are bound to it."""

    phase: int = DRAFT
    base: Revision | None = None
    comment: str = ""
    number: int = 0
    label: str = ""
    content: dict[str, str] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    sessions: list[str] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        return super().shown() | {"number": str(self.number), "base_revision_id": self.base.id if self.base else ""}


@dataclass(eq=False, kw_only=True)
class Blob(Holder):
    """`events` are the types of what WatchBlob streams, `committed` the revisions in the order of their commits."""

    revisions: list[Revision]
    committed: list[Revision] = field(default_factory=list)
    default: Revision
    records: dict[str, Record] = field(default_factory=dict)
    events: list[str] = field(default_factory=lambda: ["blob_created"])

    def shown(self) -> dict[str, Any]:
        return super().shown() | {
            "default_revision_id": self.default.id,
            "first_sequence": "1",
            "last_sequence": str(len(self.events)),
        }


@dataclass(eq=False, kw_only=True)
class Organization(Holder):
    blobs: list[Blob] = field(default_factory=list)


@dataclass
class Place:
    """What a reference leads to. `refusal` is for those who may see the place, when the thing is not to be had."""

    organization: Organization
    blob: Blob | None = None
    revision: Revision | None = None
    refusal: Refused | None = None
    by_default: bool = False
    """Whether the revision was named as the default one."""
    by_id: bool = False
    """Whether it was named by its id alone."""

    @property
    def holder(self) -> Holder:
        return self.blob or self.organization


class Places:
    """Organizations with all that is in them, in order of creation: what references lead to, and who may go there."""

    def __init__(self) -> None:
        self.organizations: list[Organization] = []
        self.parent: Place | None = None
        """The organization that the last reference to a blob named."""

    # References

    def organization(self, reference: str) -> Place | None:
        self.parent = None
        for organization in self.organizations:
            if reference in (organization.alias, organization.id):
                return Place(organization=organization)
            if reference in organization.former:
                return Place(organization=organization, refusal=Refused("RENAMED", alias=organization.alias))
        return None

    def blob(self, reference: str) -> Place | None:
        of, slash, alias = reference.partition("/")
        if not slash:
            self.parent = None
            return next((place for place in self.blobs() if place.blob.id == reference), None)
        place = self.organization(of)
        self.parent = Place(organization=place.organization) if place else None
        for blob in place.organization.blobs if place else []:
            if alias == blob.alias and not place.refusal:
                return Place(organization=place.organization, blob=blob)
            if alias in {blob.alias, *blob.former}:
                today = f"{place.organization.alias}/{blob.alias}"
                return Place(organization=place.organization, blob=blob, refusal=Refused("RENAMED", alias=today))
        return None

    def revision(self, reference: str) -> Place | None:
        self.parent = None
        for place in self.blobs():
            for revision in place.blob.revisions:
                if revision.id == reference:
                    return replace(place, revision=revision, by_id=True)
        of, _, version = reference.partition("@")
        place, version = self.blob(of), version or "default"
        if place is not None and place.refusal:
            place.refusal.metadata["alias"] += f"@{version}"
        elif place is not None:
            try:
                place.revision, place.by_default = self.version(place.blob, version), version == "default"
            except Refused as refusal:
                place.refusal = refusal
        return place

    def version(self, blob: Blob, version: str) -> Revision:
        if version == "default":
            return blob.default
        found = [r for r in blob.revisions if version in (r.id, str(r.number)) or (version == "draft" and r.phase == DRAFT)]
        if len(found) != 1:
            raise Refused("AMBIGUOUS_REFERENCE" if found else "NOT_FOUND")
        return found[0]

    def scope(self, reference: str) -> Place | None:
        return self.organization(reference) or self.blob(reference)

    def target(self, reference: str) -> Place | None:
        return self.revision(reference) if "@" in reference else self.blob(reference) or self.revision(reference)

    def blobs(self) -> list[Place]:
        return [
            Place(organization=organization, blob=blob) for organization in self.organizations for blob in organization.blobs
        ]

    # Who may do what

    def role(self, who: Caller, place: Place) -> int:
        """The effective role: the stronger of two, as far as the key gives it. Being public does not count."""
        if who.administrator:
            return ADMIN
        found = [holder.members.get(who.user) for holder in (place.organization, place.holder)]
        return min(who.most, max(member.role if member else NONE for member in found))

    def admit(self, who: Caller, place: Place | None, need: int, *, public_read: bool = False) -> Place:
        """The place, for a caller who may. What they may not see is like what is absent."""
        if not who.user and not public_read:
            raise Refused("UNAUTHENTICATED")
        if place and place.by_id and place.revision.phase == DRAFT and not self.role(who, place):
            place = None
        refusal = self._refusal(who, place, need, public_read=public_read)
        if refusal is not None:
            hidden = refusal.reason in ("NOT_FOUND", "PERMISSION_DENIED")
            raise Refused("UNAUTHENTICATED") if hidden and not who.user else refusal
        if place.revision and place.revision.phase == DRAFT and not self.role(who, place):
            return self._without_drafts(who, place)
        return place

    def _without_drafts(self, who: Caller, place: Place) -> Place:
        """The place as those without a role see it: the latest that is no draft takes the place of a default that is one."""
        latest = self._latest(place.blob)
        if latest is None or not place.by_default:
            raise Refused("NOT_FOUND" if who.user else "UNAUTHENTICATED")
        return replace(place, revision=latest)

    def _latest(self, blob: Blob) -> Revision | None:
        return next((r for r in reversed(blob.committed) if r in blob.revisions), None)

    def seen(self, who: Caller, place: Place) -> Blob:
        """The blob of a place as a caller sees it: its default revision is no draft to those without a role."""
        if place.blob.default.phase != DRAFT or self.role(who, place):
            return place.blob
        return replace(place.blob, default=self._latest(place.blob) or Revision())

    def _refusal(self, who: Caller, place: Place | None, need: int, *, public_read: bool) -> Refused | None:
        if place is None or not self._sees(who, place):
            readable = who.administrator or (self.parent is not None and self._sees(who, self.parent))
            return Refused("NOT_FOUND" if readable else "PERMISSION_DENIED")
        if place.refusal and place.refusal.reason == "RENAMED":
            return place.refusal
        public = public_read and place.holder.visibility == PUBLIC
        if not public and self.role(who, place) < need:
            return Refused("PERMISSION_DENIED", role={READ: "read", WRITE: "write", ADMIN: "admin"}[need])
        if place.refusal and place.refusal.reason == "AMBIGUOUS_REFERENCE" and not self.role(who, place):
            return Refused("NOT_FOUND")
        return place.refusal

    def _sees(self, who: Caller, place: Place) -> bool:
        return place.holder.visibility == PUBLIC or self.role(who, place) >= READ

    def get_caller(self, who: Caller, parent: str = "") -> list[dict[str, Any]]:
        """The effective roles: on a scope, or wherever the user is a member."""
        if not parent:
            places = [
                p
                for o in self.organizations
                for p in (Place(organization=o), *(Place(organization=o, blob=blob) for blob in o.blobs))
            ]
            return [self._effective(p, self.role(who, p)) for p in places if who.user in p.holder.members]
        place = self.scope(parent)
        role = place and max(self.role(who, place), READ if place.holder.visibility == PUBLIC else NONE)
        if role and place.refusal:
            raise place.refusal
        return [self._effective(place, role)] if role else []

    def _effective(self, place: Place, role: int) -> dict[str, Any]:
        alias, blob = place.organization.alias, place.blob
        reference = f"{alias}/{blob.alias}" if blob else alias
        return {
            "organization_id": place.organization.id,
            "blob_id": blob.id if blob else "",
            "reference": reference,
            "role": role,
        }
