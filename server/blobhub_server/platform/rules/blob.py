"""Blobs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

PRIVATE = "private"
PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class Blob:
    """A typed, versioned unit of data."""

    id: str
    org_id: str
    alias: str
    type: str
    visibility: str
    description: str
    default_revision_id: str
    create_time: datetime
    update_time: datetime
    etag: str
