"""Organizations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from blobhub_server.errors import LimitExceeded, NotEmpty
from blobhub_server.platform.rules.visibility import PUBLIC

MAX_CREATED = 1000
"""How many organizations of their creation a user may have."""


@dataclass(frozen=True, slots=True)
class Organization:
    """A container of blobs, and the access boundary. `blob_count` is how many it holds."""

    id: str
    alias: str
    description: str
    visibility: str
    blob_count: int
    create_time: datetime
    update_time: datetime
    etag: str

    @property
    def public(self) -> bool:
        """True when everybody may see its record and its public blobs."""
        return self.visibility == PUBLIC


def require_empty(organization: Organization, *, cascade: bool) -> None:
    """Raise NotEmpty when an organization holds blobs, unless `cascade` says to delete them too."""
    if organization.blob_count and not cascade:
        raise NotEmpty("organization", f"{organization.blob_count} blobs")


def require_room(user_id: str, held: int) -> None:
    """Raise LimitExceeded when a user who has created `held` organizations may not create another."""
    if held >= MAX_CREATED:
        raise LimitExceeded("user.organizations", MAX_CREATED, user_id)
