"""Metadata: records on blobs and revisions, beside their content."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from blobhub_server.blobtypes import json_text
from blobhub_server.errors import InvalidValue, LimitExceeded

MAX_RECORDS = 256
MAX_BYTES = 64 << 10
MAX_DEPTH = 30
"""Protobuf reads a hundred levels. An object takes three, and a response nests the value deeper than a request."""


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


def encode(value: Any) -> str:
    """The value as compact JSON text. Raises InvalidValue when it is larger, or nests deeper, than a record's may."""
    if json_text.depth(value) > MAX_DEPTH:
        raise InvalidValue("value", f"must nest at most {MAX_DEPTH} lists and objects")
    return json_text.encode("value", value, MAX_BYTES)


def require_room(parent_id: str, held: int) -> None:
    """Raise LimitExceeded when a parent that holds `held` records is full."""
    if held >= MAX_RECORDS:
        raise LimitExceeded("metadata.records_per_parent", MAX_RECORDS, parent_id)
