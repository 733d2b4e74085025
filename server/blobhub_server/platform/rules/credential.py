"""Credentials: secrets that blobs refer to by alias. A record never holds the secret; that is kept sealed, beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from blobhub_server.blobtypes import json_text
from blobhub_server.errors import InvalidValue, LimitExceeded

MAX_BODY_BYTES = 16 * 1024
_ALLOWED = (
    f"must be one JSON object of at most {MAX_BODY_BYTES // 1024} KiB, at most {json_text.MAX_DEPTH} levels deep, "
    "with finite numbers, integers of 64 bits, and no key twice"
)
MAX_CREDENTIALS = 1000
"""How many credentials a user, an organization or a blob may have."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential's record. It is a blob's when `blob_id` is set, else an organization's or a user's."""

    id: str
    user_id: str | None
    organization_id: str | None
    blob_id: str | None
    alias: str
    type: str
    description: str
    create_time: datetime
    update_time: datetime
    etag: str

    @property
    def parent_id(self) -> str:
        """The id of its parent: a blob, an organization or a user."""
        return self.blob_id or self.organization_id or self.user_id or ""

    @property
    def identity(self) -> bytes:
        """What a sealed body is bound to: all that never changes of the record. No two records have the same."""
        return json.dumps([self.id, self.user_id, self.organization_id, self.blob_id, self.alias, self.type]).encode()


@dataclass(frozen=True, slots=True)
class SealedBody:
    """An encrypted body: the ciphertext under a key of its own, and that key wrapped under a master key."""

    master_key_id: str
    key_nonce: bytes
    wrapped_key: bytes
    nonce: bytes
    ciphertext: bytes


def encode(body: Mapping[str, Any]) -> bytes:
    """A body as JSON. Raises InvalidValue, which shows nothing of it."""
    try:
        return json_text.encode("body", body, MAX_BODY_BYTES).encode()
    except InvalidValue:
        raise InvalidValue("body", _ALLOWED) from None


def parse(text: str) -> bytes:
    """A body that came as JSON text, as compact JSON. Raises InvalidValue, which shows nothing of it."""
    try:
        body, compact = json_text.parse("body_json", text, MAX_BODY_BYTES)
    except InvalidValue:
        raise InvalidValue("body_json", _ALLOWED) from None
    if not isinstance(body, dict):
        raise InvalidValue("body_json", _ALLOWED)
    return compact.encode()


def require_room(parent_id: str, held: int) -> None:
    """Raise LimitExceeded when a parent of `held` credentials may not have another."""
    if held >= MAX_CREDENTIALS:
        raise LimitExceeded("credentials", MAX_CREDENTIALS, parent_id)
