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
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from blobhub_server.platform.rules.access import Role

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile(r"(bhk_([0-9A-Za-z]{12})_([0-9A-Za-z]{22}))([0-9A-Za-z]{6})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key's record. Exactly one of `user_id` and `org_id` is set; `blob_id` confines a scoped key to one blob."""

    id: str
    public_id: str
    secret_hash: bytes
    user_id: str | None
    org_id: str | None
    blob_id: str | None
    role: Role
    description: str
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None
    last_used_time: datetime | None
    etag: str

    def valid(self, now: datetime) -> bool:
        """True while the key is neither revoked nor expired."""
        return self.revoke_time is None and (self.expire_time is None or now < self.expire_time)


def make_secret(entropy: Callable[[int], bytes]) -> str:
    """A new key, to be shown once. `entropy` answers so many random bytes."""
    return _with_checksum(f"bhk_{_base62(entropy(16), 12)}_{_base62(entropy(32), 22)}")


def parse(key: str) -> tuple[str, bytes] | None:
    """Public id and hash of a key that is well-formed; None otherwise."""
    match = _SHAPE.fullmatch(key)
    if match is None or _with_checksum(match[1]) != key:
        return None
    return match[2], hmac.new(match[2].encode(), match[3].encode(), hashlib.sha256).digest()


def matches(record: ApiKey, secret_hash: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(record.secret_hash, secret_hash)


def _with_checksum(text: str) -> str:
    return text + _base62(zlib.crc32(text.encode()).to_bytes(4, "big"), 6)


def _base62(data: bytes, length: int) -> str:
    number = int.from_bytes(data, "big")
    out = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        out.append(_DIGITS[digit])
    return "".join(out)
