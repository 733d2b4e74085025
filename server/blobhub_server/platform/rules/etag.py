"""Etags: every write gives a record a new one, so that nobody overwrites what they have not seen (AIP-154)."""

from __future__ import annotations

from blobhub_server.errors import StaleEtag


def require_etag(sent: str, current: str) -> None:
    """Raise StaleEtag when an etag is sent and is not the current one."""
    if sent and sent != current:
        raise StaleEtag(current)
