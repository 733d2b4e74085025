"""What the services of organizations and blobs share: visibility, and how an update changes a record."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from blobhub.v1 import blob_pb2 as pb
from blobhub.v1 import organization_pb2

from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.rules.visibility import PRIVATE, PUBLIC

_TO = {PRIVATE: pb.VISIBILITY_PRIVATE, PUBLIC: pb.VISIBILITY_PUBLIC}
_FROM = {number: name for name, number in _TO.items()}

SHARED_FIELDS = ("alias", "description", "visibility")
"""What an update can change of an organization as of a blob."""


def to_visibility(visibility: str) -> pb.Visibility.ValueType:
    """As the enum's value."""
    return _TO[visibility]


def from_visibility(visibility: pb.Visibility.ValueType, *, unset: str = PRIVATE) -> str:
    """From the enum's value; `unset` stands for the unspecified one."""
    return _FROM.get(visibility, unset)


def changed_columns(
    request: pb.UpdateBlobRequest | organization_pb2.UpdateOrganizationRequest,
    current: Blob | Organization,
    fields: set[str],
    *,
    now: datetime,
    etag: str,
) -> dict[str, Any]:
    """The columns that an update of `fields` changes, without an unchanged alias or an unset visibility."""
    values: dict[str, Any] = {"update_time": now, "etag": etag}
    if "description" in fields:
        values["description"] = request.description
    if "visibility" in fields and request.visibility:
        values["visibility"] = from_visibility(request.visibility)
    if "alias" in fields and request.alias not in ("", current.alias):
        values["alias"] = request.alias
    return values
