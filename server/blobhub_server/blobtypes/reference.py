"""References to what is in a revision: `acme/pipeline@3/intake`, `<revision id>/intake`, or the thing's own id."""

from __future__ import annotations

from dataclasses import dataclass

from blobhub_server.ids import canonical_id


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
