"""Revisions: draft → commit → snapshot, one way only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from blobhub_server.blobtypes.values import Dependents
from blobhub_server.errors import RevisionInUse, WrongPhase

DRAFT = "draft"
COMMIT = "commit"
SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True)
class Revision:
    """A point-in-time version of a blob. `number` counts a blob's snapshots from 1; None until published. `commit_time`
    is None for a draft. `entries` says how many its content has.
    """

    id: str
    blob_id: str
    phase: str
    base_revision_id: str | None
    comment: str
    number: int | None
    label: str
    digest: str
    create_time: datetime
    update_time: datetime
    commit_time: datetime | None
    etag: str
    entries: int


def make_draft(*, id_: str, blob_id: str, base: Revision | None, comment: str, now: datetime, etag: str) -> Revision:
    """A draft with the content of its base, or without content."""
    return Revision(
        id=id_,
        blob_id=blob_id,
        phase=DRAFT,
        base_revision_id=base.id if base else None,
        comment=comment,
        number=None,
        label="",
        digest="",
        create_time=now,
        update_time=now,
        commit_time=None,
        etag=etag,
        entries=base.entries if base else 0,
    )


def require_phase(revision: Revision, *allowed: str) -> None:
    """Raise WrongPhase unless the revision is in one of the phases."""
    if revision.phase not in allowed:
        raise WrongPhase(revision.phase, " or ".join(allowed))


def require_unused(dependents: Sequence[Dependents]) -> None:
    """Raise RevisionInUse when anything depends on the revision."""
    uses = [f"{item.count} {item.kind}" for item in dependents if item.count]
    if uses:
        raise RevisionInUse(", ".join(uses))
