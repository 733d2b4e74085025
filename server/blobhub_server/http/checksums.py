"""Checksums that come with a body: `Content-Digest` of RFC 9530, and `x-goog-hash`, which clients send to Google."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping

BYTES = {"sha-256": 32, "crc32c": 4}
"""The checksums that are compared, and how long each is. Others are passed over."""

_ITEM = re.compile(r"([a-z0-9-]+)=:([A-Za-z0-9+/=]*):(?:;.*)?")


class BadChecksum(Exception):
    """A checksum is not of the form it should have."""


def given(headers: Mapping[str, str]) -> dict[str, bytes]:
    """The checksums that headers name. Raises BadChecksum."""
    found: dict[str, bytes] = {}
    for name, text in [*_digests(headers.get("content-digest", "")), *_hashes(headers.get("x-goog-hash", ""))]:
        if name not in BYTES:
            continue
        try:
            value = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise BadChecksum from None
        if len(value) != BYTES[name] or found.setdefault(name, value) != value:
            raise BadChecksum
    return found


def content_digest(sha256: str) -> str:
    """The value of `Content-Digest` or `Repr-Digest` for a SHA-256 in hex."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def _digests(header: str) -> Iterator[tuple[str, str]]:
    for item in filter(None, map(str.strip, header.split(","))):
        found = _ITEM.fullmatch(item)
        if found is None:
            raise BadChecksum
        yield found[1], found[2]


def _hashes(header: str) -> Iterator[tuple[str, str]]:
    for item in filter(None, map(str.strip, header.split(","))):
        name, separator, value = item.partition("=")
        if not separator:
            raise BadChecksum
        yield name, value
