"""Organizations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Organization:
    """A container of blobs, and the access boundary."""

    id: str
    alias: str
    description: str
    create_time: datetime
    update_time: datetime
    etag: str
