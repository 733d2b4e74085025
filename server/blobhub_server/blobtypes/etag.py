"""Etags: every write gives a record a new one, so that nobody overwrites what they have not seen (AIP-154)."""

from __future__ import annotations

from blobhub_server.errors import StaleEtag

ANY = "*"
"""The etag that every record has: a call with it is refused only where there is no record (RFC 9110, If-Match)."""


def require_etag(sent: str, current: str) -> None:
    """Raise StaleEtag when an etag is sent and is neither `ANY` nor the current one."""
    if sent and sent not in (ANY, current):
        raise StaleEtag(current)
