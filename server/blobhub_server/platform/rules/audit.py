"""The audit log's entries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """The record of one call. `audit.proto` describes the fields."""

    sequence: int
    id: str
    create_time: datetime
    method: str
    user_id: str | None
    api_key_id: str | None
    organization_id: str | None
    blob_id: str | None
    resource_type: str
    resource: str
    code: str
    reason: str
    domain: str
    request_id: str
    detail: str
