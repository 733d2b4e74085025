"""References to revisions, and to what is in one: `acme/pipeline@3/intake`, `<revision id>/intake`, or the thing's own id.

The whole grammar is in `platform/rules/reference.py`, which reads references by what is here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from blobhub_server.ids import canonical_id, is_uuid

DEFAULT = "default"
DRAFT = "draft"
LATEST = "latest"
EVERYWHERE = "-"

_ALIAS = re.compile(r"[a-z0-9_-]{1,63}")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


def is_alias(text: str) -> bool:
    """Whether a text has the form of an alias of an organization or a blob."""
    return _ALIAS.fullmatch(text) is not None and text != EVERYWHERE and not is_uuid(text)


def read_version(text: str) -> str:
    """A version of a blob: `default`, `draft`, `latest`, a number or an id; empty for what is none."""
    if text in (DEFAULT, DRAFT, LATEST) or _NUMBER.fullmatch(text):
        return text
    return canonical_id(text)


def names_revision(text: str) -> bool:
    """Whether a text has the form of a reference to a revision: `acme/pipeline`, with or without a version, or an id."""
    blob, at, version = text.partition("@")
    if at and not read_version(version):
        return False
    if canonical_id(blob):
        return True
    organization, _, alias = blob.partition("/")
    return bool(is_alias(organization) or canonical_id(organization)) and is_alias(alias)


@dataclass(frozen=True, slots=True)
class Within:
    """What a reference says: an id, or an alias in a revision, which a reference of its own names."""

    id: str = ""
    revision: str = ""
    alias: str = ""


def parse_within(text: str) -> Within:
    """The parts of a reference whose field has the rule `blobhub.v1.within`, by which its form was checked."""
    if id_ := canonical_id(text):
        return Within(id=id_)
    revision, _, alias = text.rpartition("/")
    return Within(revision=revision, alias=alias)
