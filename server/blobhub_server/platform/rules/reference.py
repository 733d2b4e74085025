"""References: how requests name organizations, blobs and revisions.

    organization = alias | id
    blob         = organization "/" alias | id
    revision     = blob [ "@" version ] | id
    version      = "default" | "draft" | number | id
    scope        = organization | blob

A revision without a version is the blob's default one. Ids are lower-case UUIDs; no alias looks like one, so an id needs
no mark. A lone id is looked up among whatever is asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from blobhub_server.errors import InvalidReference
from blobhub_server.ids import is_uuid

_ALIAS = re.compile(r"[a-z0-9]([a-z0-9_-]{0,40}[a-z0-9])?")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")

DEFAULT = "default"
DRAFT = "draft"


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference: the parts that were given. A lone id stands in `id`."""

    organization: str = ""
    blob: str = ""
    version: str = ""
    id: str = ""


def parse(kind: str, field: str, text: str) -> Reference:
    """Parse a reference to an `organization`, `blob`, `revision` or `scope`. Raises InvalidReference."""
    made = _PARSERS[kind](text)
    if made is None:
        raise InvalidReference(field, _EXPECTED[kind])
    return made


def _alias(text: str) -> bool:
    return _ALIAS.fullmatch(text) is not None


def _organization(text: str) -> Reference | None:
    if is_uuid(text):
        return Reference(id=text)
    return Reference(organization=text) if _alias(text) else None


def _blob(text: str) -> Reference | None:
    if is_uuid(text):
        return Reference(id=text)
    organization, slash, blob = text.partition("/")
    if slash and (_alias(organization) or is_uuid(organization)) and _alias(blob):
        return Reference(organization=organization, blob=blob)
    return None


def _revision(text: str) -> Reference | None:
    if is_uuid(text):
        return Reference(id=text)
    blob, at, version = text.partition("@")
    found = _blob(blob)
    if found is None or (at and not is_version(version)):
        return None
    return Reference(found.organization, found.blob, version or DEFAULT, found.id)


def _scope(text: str) -> Reference | None:
    return _organization(text) or _blob(text)


def is_version(text: str) -> bool:
    """True for what may follow the `@`."""
    return text in (DEFAULT, DRAFT) or _NUMBER.fullmatch(text) is not None or is_uuid(text)


_PARSERS = {"organization": _organization, "blob": _blob, "revision": _revision, "scope": _scope}

_EXPECTED = {
    "organization": "`acme` or an id",
    "blob": "`acme/pipeline` or an id",
    "revision": "`acme/pipeline@default`, `@3`, `@draft`, `@<revision id>`, or a revision's id",
    "scope": "`acme`, `acme/pipeline` or an id",
}
