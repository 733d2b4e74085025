"""Metadata: records on blobs and revisions, beside their content."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from blobhub_server.errors import LimitExceeded

MAX_RECORDS = 256
MAX_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class MetadataRecord:
    """A record on `parent_id`: the blob `blob_id`, or a revision of it. `value` is JSON text."""

    parent_id: str
    blob_id: str
    key: str
    value: str
    description: str
    create_time: datetime
    update_time: datetime
    etag: str


def require_room(parent_id: str, held: int) -> None:
    """Raise LimitExceeded when a parent that holds `held` records is full."""
    if held >= MAX_RECORDS:
        raise LimitExceeded("metadata.records_per_parent", MAX_RECORDS, parent_id)
