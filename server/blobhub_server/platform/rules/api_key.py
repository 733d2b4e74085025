"""API keys: `bhk_<public id>_<secret><checksum>`, all of it letters and digits.

The public id (12 characters) finds the record. The secret (22 characters, 131 random bits) is never stored: the record
has an HMAC-SHA256 of it. The checksum (6 characters, CRC-32 of all before it) lets a malformed key be refused without
asking the database, and secret scanners recognise a real one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from blobhub_server.blobtypes.access import Role
from blobhub_server.errors import KeyEnded, LimitExceeded

MAX_PERSONAL_KEYS = 100
"""How many valid keys a user may have."""

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile(r"(bhk_([0-9A-Za-z]{12})_([0-9A-Za-z]{22}))([0-9A-Za-z]{6})")
_KEY_PATTERN = re.compile(r"(bhk_[0-9A-Za-z]*_)\w+")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key's record. Exactly one of `user_id` and `organization_id` is set; `blob_id` confines a scoped key to one blob.

    A worker's key has the names of its `queues`, and no role; no other key has any.
    """

    id: str
    public_id: str
    secret_hash: bytes
    user_id: str | None
    organization_id: str | None
    blob_id: str | None
    role: Role
    description: str
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None
    last_used_time: datetime | None
    etag: str
    queues: Sequence[str]

    def valid(self, now: datetime) -> bool:
        """True while the key is neither revoked nor expired."""
        return self.revoke_time is None and (self.expire_time is None or now < self.expire_time)


def make_secret(entropy: Callable[[int], bytes]) -> str:
    """A new key, to be shown once. `entropy` returns as many random bytes as it is asked for."""
    text = f"bhk_{_base62(entropy(16), 12)}_{_base62(entropy(32), 22)}"
    return text + checksum(text)


def new_key(
    secret: str,
    *,
    id: str,
    user_id: str | None,
    organization_id: str | None,
    blob_id: str | None,
    role: Role,
    description: str,
    now: datetime,
    expire_time: datetime | None,
    etag: str,
    queues: Sequence[str] = (),
) -> ApiKey:
    """The record of a key that was just made."""
    parsed = parse(secret)
    assert parsed is not None, "made by make_secret, or checked before"
    return ApiKey(
        id=id,
        public_id=parsed[0],
        secret_hash=parsed[1],
        user_id=user_id,
        organization_id=organization_id,
        blob_id=blob_id,
        role=role,
        description=description,
        create_time=now,
        expire_time=expire_time,
        revoke_time=None,
        last_used_time=None,
        etag=etag,
        queues=queues,
    )


def successor(key: ApiKey, secret: str, *, id: str, now: datetime, etag: str) -> ApiKey:
    """The record of the key that replaces another one: the same but for id, secret, etag and creation."""
    return new_key(
        secret,
        id=id,
        user_id=key.user_id,
        organization_id=key.organization_id,
        blob_id=key.blob_id,
        role=key.role,
        description=key.description,
        now=now,
        expire_time=key.expire_time,
        etag=etag,
        queues=key.queues,
    )


def require_valid(key: ApiKey, now: datetime) -> None:
    """Raise KeyEnded when a key is revoked or expired."""
    if not key.valid(now):
        raise KeyEnded


def require_room(user_id: str, held: int) -> None:
    """Raise LimitExceeded when `held` valid keys, the new one included, are too many for a user."""
    if held > MAX_PERSONAL_KEYS:
        raise LimitExceeded("user.api_keys", MAX_PERSONAL_KEYS, user_id)


def after_grace(key: ApiKey, now: datetime, grace: timedelta) -> datetime:
    """When a rotated key expires: after the grace period, but not later than before."""
    ends = now + grace
    return ends if key.expire_time is None else min(ends, key.expire_time)


def parse(key: str) -> tuple[str, bytes] | None:
    """Public id and hash of a key that is well-formed; None otherwise."""
    match = _SHAPE.fullmatch(key)
    if match is None or checksum(match[1]) != match[4]:
        return None
    return match[2], hmac.new(match[2].encode(), match[3].encode(), hashlib.sha256).digest()


def matches(record: ApiKey, secret_hash: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(record.secret_hash, secret_hash)


def mask_keys(text: str) -> str:
    """The text with every key in it cut to its public id, because people put keys where an id belongs."""
    return _KEY_PATTERN.sub(r"\1…", text)


def checksum(text: str) -> str:
    """The checksum that ends a key, of all before it."""
    return _base62(zlib.crc32(text.encode()).to_bytes(4, "big"), 6)


def _base62(data: bytes, length: int) -> str:
    number = int.from_bytes(data, "big")
    out = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        out.append(_DIGITS[digit])
    return "".join(out)
