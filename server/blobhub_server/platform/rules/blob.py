"""Blobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from blobhub_server.blobtypes.values import Dependents
from blobhub_server.errors import NotEmpty
from blobhub_server.platform.rules.visibility import PUBLIC


@dataclass(frozen=True, slots=True)
class Blob:
    """A typed, versioned unit of data. `last_sequence` is the last number of its events; `bytes` how much content its
    revisions hold, each content counted once.
    """

    id: str
    organization_id: str
    alias: str
    type: str
    visibility: str
    description: str
    default_revision_id: str
    create_time: datetime
    update_time: datetime
    etag: str
    last_sequence: int
    bytes: int

    @property
    def public(self) -> bool:
        """True when everybody may read it."""
        return self.visibility == PUBLIC


def require_unused(in_use: Sequence[Dependents], *, cascade: bool) -> None:
    """Raise NotEmpty when something runs in a blob, unless `cascade` says to delete it too."""
    uses = [f"{item.count} {item.kind}" for item in in_use if item.count]
    if uses and not cascade:
        raise NotEmpty("blob", ", ".join(uses))
