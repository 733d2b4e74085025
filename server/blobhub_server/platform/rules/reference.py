"""References: how requests name organizations, blobs and revisions.

    organization = alias | id
    blob         = organization "/" alias | id
    revision     = blob [ "@" version ] | id
    version      = "default" | "draft" | "latest" | number | id
    user         = "@me" | "@" name | id
    queue        = organization "/" name

    organization_or_blob         = organization | blob
    blob_or_revision             = blob | revision
    organization_blob_or_user    = organization | blob | user
    organization_blob_or_server  = organization | blob | "-"

Without a version the default revision is meant. Ids are UUIDs, compared without regard to case. No alias looks like one, so
an id needs no prefix. A lone id is looked up among the kinds that the field allows. `-` stands for all organizations
(AIP-159). What is in a revision is named as `blobtypes.reference` says.
"""

from __future__ import annotations

from dataclasses import dataclass

from blobhub_server.blobtypes.reference import DEFAULT, DRAFT, EVERYWHERE, LATEST, is_alias, read_version
from blobhub_server.errors import InvalidReference
from blobhub_server.ids import canonical_id, is_uuid

__all__ = ["DEFAULT", "DRAFT", "EVERYWHERE", "KINDS", "LATEST", "ME", "Reference", "named_blob", "parse", "parse_if_known"]

ME = "me"


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference: the parts that were given. A lone id stands in `id`, a user's name in `user`.

    A `queue` is named in its organization, with the form of an alias; it has no id.
    """

    organization: str = ""
    blob: str = ""
    version: str = ""
    id: str = ""
    user: str = ""
    queue: str = ""


def parse(kind: str, field: str, text: str) -> Reference:
    """Parse a reference of a kind of the grammar above. Raises InvalidReference."""
    made = _PARSERS[kind](text)
    if made is None:
        raise InvalidReference(field, _EXPECTED[kind])
    return made


def parse_if_known(kind: str, field: str, text: str) -> Reference | None:
    """The same; None for a kind that a blob type adds, whose form its constraints say. Raises InvalidReference."""
    return parse(kind, field, text) if kind in _PARSERS else None


def named_blob(text: str) -> Reference | None:
    """The blob that a reference below it names by alias, as in `acme/pipeline@3/intake`; None when it names none."""
    found = _blob(text.partition("@")[0])
    return found if found is not None and found.blob else None


def _organization(text: str) -> Reference | None:
    if id_ := canonical_id(text):
        return Reference(id=id_)
    return Reference(organization=text) if is_alias(text) else None


def _blob(text: str) -> Reference | None:
    if id_ := canonical_id(text):
        return Reference(id=id_)
    organization, slash, blob = text.partition("/")
    organization = canonical_id(organization) or organization
    if slash and (is_alias(organization) or is_uuid(organization)) and is_alias(blob):
        return Reference(organization=organization, blob=blob)
    return None


def _revision(text: str) -> Reference | None:
    if id_ := canonical_id(text):
        return Reference(id=id_)
    blob, at, version = text.partition("@")
    found, version = _blob(blob), read_version(version) if at else DEFAULT
    if found is None or not version:
        return None
    return Reference(organization=found.organization, blob=found.blob, version=version, id=found.id)


def _queue(text: str) -> Reference | None:
    found = _blob(text)
    return Reference(organization=found.organization, queue=found.blob) if found is not None and found.blob else None


def _organization_or_blob(text: str) -> Reference | None:
    return _organization(text) or _blob(text)


def _blob_or_revision(text: str) -> Reference | None:
    return _revision(text) if "@" in text else _blob(text)


def _user(text: str) -> Reference | None:
    if id_ := canonical_id(text):
        return Reference(id=id_)
    return Reference(user=text[1:]) if text.startswith("@") and is_alias(text[1:]) else None


def _organization_blob_or_user(text: str) -> Reference | None:
    return _organization_or_blob(text) or _user(text)


def _organization_blob_or_server(text: str) -> Reference | None:
    return Reference(organization=EVERYWHERE) if text == EVERYWHERE else _organization_or_blob(text)


_PARSERS = {
    "organization": _organization,
    "blob": _blob,
    "revision": _revision,
    "organization_or_blob": _organization_or_blob,
    "blob_or_revision": _blob_or_revision,
    "version": lambda text: Reference(version=version) if (version := read_version(text)) else None,
    "user": _user,
    "queue": _queue,
    "organization_blob_or_user": _organization_blob_or_user,
    "organization_blob_or_server": _organization_blob_or_server,
}

KINDS = frozenset(_PARSERS)
"""The kinds of the grammar. The form of others, which blob types add, is a rule of their fields."""

_EXPECTED = {
    "organization": "`acme` or an id",
    "blob": "`acme/pipeline` or an id",
    "revision": "`acme/pipeline@default`, `@3`, `@draft`, `@latest`, `@<revision id>`, or a revision's id",
    "organization_or_blob": "`acme`, `acme/pipeline` or an id",
    "blob_or_revision": "`acme/pipeline`, `acme/pipeline@3` or an id",
    "version": "`default`, `draft`, `latest`, a snapshot number, or a revision's id",
    "user": "`@me`, `@name` or an id",
    "queue": "`acme/resize`, or with the organization's id before the slash",
    "organization_blob_or_user": "`acme`, `acme/pipeline`, `@me`, `@name` or an id",
    "organization_blob_or_server": "`acme`, `acme/pipeline`, an id, or `-` for the whole server",
}
