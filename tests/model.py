"""A plain model of the platform: what its pages promise, in dictionaries, one call after the other.

An operation is called as the RPC, takes the RPC's fields as in JSON, and returns what it was about; or it raises Refused
and has changed nothing. Ids and etags are the server's to make: whoever drives the model writes them into what was returned.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from things import (
    ADMIN,
    COMMIT,
    CURRENT,
    DRAFT,
    OF_BLOB,
    OF_REVISION,
    PHASES,
    PRIVATE,
    PUBLIC,
    READ,
    SNAPSHOT,
    WRITE,
    Blob,
    Caller,
    Holder,
    Member,
    Organization,
    Places,
    Record,
    Refused,
    Revision,
    Thing,
)


def claim(neighbours: list[Any], alias: str, own: Holder | None = None) -> None:
    """Refuse an alias that another one has, or has given up."""
    if any(alias == other.alias or alias in other.former for other in neighbours if other is not own):
        raise Refused("ALREADY_EXISTS")


def require_phase(revision: Revision, *phases: int) -> None:
    if revision.phase not in phases:
        needs = " or ".join(PHASES[phase] for phase in phases)
        raise Refused("WRONG_PHASE", phase=PHASES[revision.phase], needs=needs)


def changed_fields(update_mask: str, **fields: Any) -> dict[str, Any]:
    """The fields that an update changes: those of the mask, else those that are set."""
    return {name: value for name, value in fields.items() if (name in update_mask.split(",") if update_mask else value)}


class Model(Places):
    """`current` is the last etag that an operation compared."""

    def __init__(self, users: list[str]) -> None:
        super().__init__()
        self.users = users
        self.current = ""

    # Organizations and blobs

    def create_organization(self, who: Caller, alias: str, visibility: int) -> Organization:
        if not who.user:
            raise Refused("UNAUTHENTICATED")
        if who.most < ADMIN:
            raise Refused("PERMISSION_DENIED")
        claim(self.organizations, alias)
        members = {who.user: Member(user_name=who.user, role=ADMIN)}
        self.organizations.append(Organization(alias=alias, visibility=visibility or PRIVATE, members=members))
        return self.organizations[-1]

    def get_organization(self, who: Caller, organization: str) -> Organization:
        return self.admit(who, self.organization(organization), READ, public_read=True).organization

    def list_organizations(self, who: Caller) -> list[Organization]:
        if not who.user:
            raise Refused("UNAUTHENTICATED")
        mine = [o for o in self.organizations if who.administrator or who.user in o.members]
        return sorted(mine, key=lambda organization: organization.alias)

    def update_organization(self, who: Caller, organization: str, etag: str, **changes: Any) -> Organization:
        found = self.admit(who, self.organization(organization), ADMIN).organization
        return self._update(found, self.organizations, etag, **changes)

    def delete_organization(self, who: Caller, organization: str, cascade: bool, etag: str) -> Organization:
        found = self.admit(who, self.organization(organization), ADMIN).organization
        self._require_etag(etag, found)
        if found.blobs and not cascade:
            raise Refused("NOT_EMPTY", holds=f"{len(found.blobs)} blobs")
        self.organizations.remove(found)
        return found

    def create_blob(self, who: Caller, organization: str, alias: str, visibility: int, **_: str) -> Blob:
        place = self.admit(who, self.organization(organization), WRITE)
        if visibility == PUBLIC and self.role(who, place) < ADMIN:
            raise Refused("PERMISSION_DENIED", role="admin")
        claim(place.organization.blobs, alias)
        draft = Revision()
        made = Blob(alias=alias, visibility=visibility or PRIVATE, revisions=[draft], default=draft)
        place.organization.blobs.append(made)
        return made

    def get_blob(self, who: Caller, blob: str) -> Blob:
        return self.seen(who, self.admit(who, self.blob(blob), READ, public_read=True))

    def list_blobs(self, who: Caller, organization: str) -> list[Blob]:
        place = self.admit(who, self.organization(organization), READ, public_read=True)
        every = bool(self.role(who, place))
        found = [b for b in place.organization.blobs if every or b.visibility == PUBLIC or who.user in b.members]
        return [self.seen(who, replace(place, blob=blob)) for blob in found]

    def update_blob(
        self, who: Caller, blob: str, etag: str, update_mask: str, default_revision: str, **changes: Any
    ) -> Blob:
        place = self.admit(who, self.blob(blob), WRITE)
        fields = changed_fields(update_mask, default_revision=default_revision, **changes)
        if fields.keys() & {"alias", "visibility"} and self.role(who, place) < ADMIN:
            raise Refused("PERMISSION_DENIED", role="admin")
        self._require_etag(etag, place.blob)
        default = self.version(place.blob, default_revision) if fields.get("default_revision") else None
        self._update(place.blob, place.organization.blobs, etag, update_mask=update_mask, **changes)
        if fields.keys() & changes.keys():
            place.blob.events.append("blob_updated")
        if default:
            self._point(place.blob, default)
        return place.blob

    def delete_blob(self, who: Caller, blob: str, cascade: bool, etag: str) -> Blob:
        place = self.admit(who, self.blob(blob), ADMIN)
        self._require_etag(etag, place.blob)
        sessions = sum(len(revision.sessions) for revision in place.blob.revisions)
        if sessions and not cascade:
            raise Refused("NOT_EMPTY", holds=f"{sessions} open sessions")
        place.organization.blobs.remove(place.blob)
        return place.blob

    def _update(
        self,
        found: Any,
        neighbours: list[Any],
        etag: str,
        *,
        update_mask: str,
        alias: str,
        visibility: int,
        description: str,
    ) -> Any:
        """An alias that is given up stays its former holder's, who may take it back."""
        self._require_etag(etag, found)
        changes = changed_fields(update_mask, alias=alias, visibility=visibility, description=description)
        if changes.get("alias") and alias != found.alias:
            claim(neighbours, alias, found)
            found.former = {*found.former, found.alias} - {alias}
        vars(found).update({name: value for name, value in changes.items() if value or name == "description"})
        return found

    # Revisions

    def _editable(self, who: Caller, reference: str, etag: str, *phases: int) -> tuple[Blob, Revision]:
        place = self.admit(who, self.revision(reference), WRITE)
        require_phase(place.revision, *phases)
        self._require_etag(etag, place.revision)
        return place.blob, place.revision

    def create_revision(self, who: Caller, blob: str, base_revision: str) -> Revision:
        found = self.admit(who, self.blob(blob), WRITE).blob
        of = self.version(found, base_revision or "default")
        require_phase(of, COMMIT, SNAPSHOT)
        found.revisions.append(Revision(base=of, content=dict(of.content)))
        found.events.append("revision_created")
        return found.revisions[-1]

    def get_revision(self, who: Caller, revision: str) -> Revision:
        return self.admit(who, self.revision(revision), READ, public_read=True).revision

    def list_revisions(self, who: Caller, blob: str) -> list[Revision]:
        place = self.admit(who, self.blob(blob), READ, public_read=True)
        return [revision for revision in place.blob.revisions if revision.phase != DRAFT or self.role(who, place)]

    def put_definition(self, who: Caller, revision: str, alias: str, document: str, etag: str) -> Revision:
        _, found = self._editable(who, revision, etag, DRAFT)
        found.content[alias] = document
        return found

    def create_session(self, who: Caller, revision: str) -> Revision:
        return self.admit(who, self.revision(revision), WRITE).revision

    def commit_revision(self, who: Caller, revision: str, comment: str, etag: str) -> Revision:
        blob, found = self._editable(who, revision, etag, DRAFT)
        if not found.content:
            raise Refused("INVALID_CONTENT")
        found.phase, found.comment = COMMIT, comment or found.comment
        blob.committed.append(found)
        blob.events.append("revision_committed")
        return found

    def publish_revision(self, who: Caller, revision: str, label: str, keep_default: bool, etag: str) -> Revision:
        blob, found = self._editable(who, revision, etag, COMMIT)
        found.number = 1 + max(other.number for other in blob.revisions)
        found.phase, found.label = SNAPSHOT, label
        blob.events.append("revision_published")
        if not keep_default:
            self._point(blob, found)
        return found

    def discard_revision(self, who: Caller, revision: str, etag: str) -> Revision:
        blob, found = self._editable(who, revision, etag, DRAFT, COMMIT)
        held = [f"{len(ids)} {kind}" for kind, ids in self.dependents(blob, found).items()]
        if held:
            raise Refused("REVISION_IN_USE", dependents=", ".join(held))
        blob.revisions.remove(found)
        blob.events.append("revision_discarded")
        return found

    def update_revision(self, who: Caller, revision: str, comment: str, etag: str) -> Revision:
        blob, found = self._editable(who, revision, etag, DRAFT)
        found.comment = comment or found.comment
        blob.events.append("revision_updated")
        return found

    def _point(self, blob: Blob, revision: Revision) -> None:
        if blob.default is not revision:
            blob.default = revision
            blob.events.append("default_revision_changed")

    def dependents(self, blob: Blob, revision: Revision) -> dict[str, list[str]]:
        """What refers to a revision, by kind."""
        found = {
            "default pointer": [blob.id] if blob.default is revision else [],
            "branched revisions": [other.id for other in blob.revisions if other.base is revision],
            "sessions": revision.sessions,
        }
        return {kind: ids for kind, ids in found.items() if ids}

    # Metadata

    def _records(self, who: Caller, parent: str, need: int) -> tuple[Blob, dict[str, Record]]:
        place = self.admit(who, self.target(parent), need, public_read=need == READ)
        return place.blob, (place.revision or place.blob).records

    def _record(self, who: Caller, parent: str, key: str, need: int, etag: str) -> Record:
        record = self._records(who, parent, need)[1].get(key)
        if record is None:
            raise Refused("NOT_FOUND")
        self._require_etag(etag, record)
        return record

    def create_metadata(self, who: Caller, parent: str, key: str, value: Any) -> Record:
        blob, records = self._records(who, parent, WRITE)
        if key in records:
            raise Refused("ALREADY_EXISTS")
        records[key] = Record(key=key, value=value)
        blob.events.append("metadata_created")
        return records[key]

    def get_metadata(self, who: Caller, parent: str, key: str) -> Record:
        return self._record(who, parent, key, READ, "")

    def list_metadata(self, who: Caller, parent: str) -> list[Record]:
        return [record for _, record in sorted(self._records(who, parent, READ)[1].items())]

    def resolve_metadata(self, who: Caller, revision: str) -> list[tuple[int, Record]]:
        """What holds for a revision: its own records, and those of its blob's that have other keys."""
        place = self.admit(who, self.revision(revision), READ, public_read=True)
        found = {key: (OF_BLOB, record) for key, record in place.blob.records.items()}
        found |= {key: (OF_REVISION, record) for key, record in place.revision.records.items()}
        return [held for _, held in sorted(found.items(), key=lambda item: item[0])]

    def update_metadata(
        self, who: Caller, parent: str, key: str, etag: str, update_mask: str = "", **changes: Any
    ) -> Record:
        record = self._record(who, parent, key, WRITE, etag)
        names = update_mask.split(",") if update_mask else [name for name in changes if name == "value" or changes[name]]
        unset = {"value": None, "description": ""}
        vars(record).update({name: changes.get(name, unset[name]) for name in names})
        self.admit(who, self.target(parent), WRITE).blob.events.append("metadata_updated")
        return record

    def delete_metadata(self, who: Caller, parent: str, key: str, etag: str) -> Record:
        self._record(who, parent, key, WRITE, etag)
        blob, records = self._records(who, parent, WRITE)
        blob.events.append("metadata_deleted")
        return records.pop(key)

    # Members

    def create_member(self, who: Caller, parent: str, user: str, role: int) -> Member:
        members, name = self.admit(who, self.scope(parent), ADMIN).holder.members, user.removeprefix("@")
        if name not in self.users:
            raise Refused("NOT_FOUND")
        if name in members:
            raise Refused("ALREADY_EXISTS")
        members[name] = Member(user_name=name, role=role)
        return members[name]

    def list_members(self, who: Caller, parent: str) -> list[Member]:
        members = self.admit(who, self.scope(parent), READ).holder.members
        return [members[name] for name in self.users if name in members]

    def update_member(self, who: Caller, parent: str, user: str, role: int, etag: str) -> Member:
        member, _ = self._leaving(who, parent, user, etag, remains=role == ADMIN)
        member.role = role
        return member

    def delete_member(self, who: Caller, parent: str, user: str, etag: str) -> Member:
        member, members = self._leaving(who, parent, user, etag, remains=False)
        return members.pop(member.user_name)

    def _leaving(self, who: Caller, parent: str, user: str, etag: str, *, remains: bool) -> tuple[Member, dict[str, Member]]:
        """An organization keeps an admin; a blob needs none of its own."""
        place = self.admit(who, self.scope(parent), ADMIN)
        members = place.holder.members
        member = members.get(who.user if user == "@me" else user.removeprefix("@"))
        if member is None:
            raise Refused("NOT_FOUND")
        self._require_etag(etag, member)
        if not place.blob and not remains and [m for m in members.values() if m.role == ADMIN] == [member]:
            raise Refused("LAST_ADMIN")
        return member, members

    def _require_etag(self, sent: str, thing: Thing) -> None:
        self.current = thing.etag
        if sent not in ("", CURRENT, thing.etag):
            raise Refused("STALE_ETAG", etag=thing.etag)
