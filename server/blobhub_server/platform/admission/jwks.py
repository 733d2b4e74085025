"""The keys of an OpenID Connect issuer: read from where it publishes them, cached, and read again when they are stale."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import structlog

from blobhub_server.errors import IssuerUnavailable, Unauthenticated
from blobhub_server.http.outbound.configured import fetch, require_allowed
from blobhub_server.http.outbound.message import OutboundError
from blobhub_server.platform.rules import oidc as rules
from blobhub_server.platform.rules.oidc import Header, Key

log = structlog.get_logger()

MAX_AGE_SECONDS = 600.0
"""After this the keys are read again before they are used."""

MIN_INTERVAL_SECONDS = 10.0
"""The shortest time between two readings, so that unknown key ids in tokens cannot make the server flood the issuer."""

READ_TIMEOUT_SECONDS, MAX_READ_BYTES = 5.0, 1 << 20

Source = Callable[[], Awaitable[bytes]]
"""Reads a JWK set from where it is. Raises OutboundError, OSError."""


def source_of(where: str) -> Source:
    """What reads the keys from a URL, or from a file. Raises OutboundError for a URL that is not allowed."""
    if "://" in where:
        require_allowed(where)
        return partial(fetch, where, max_bytes=MAX_READ_BYTES, timeout_seconds=READ_TIMEOUT_SECONDS)
    return partial(asyncio.to_thread, Path(where).read_bytes)


class Jwks:
    """Keeps an issuer's keys.

    One task at a time reads them, and a caller that goes away does not interrupt it. While they cannot be read, known keys
    stay in use, and nobody whose key is known waits.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._keys: Sequence[Key] = ()
        self._stale_time = self._next_read_time = time.monotonic()
        self._failing = False
        self._reading: asyncio.Task[None] | None = None

    async def key(self, header: Header) -> Key:
        """The key that a token says it is signed with. Raises Unauthenticated, IssuerUnavailable."""
        found = rules.choose(self._keys, header)
        if found is None or time.monotonic() >= self._stale_time:
            reading = self._start_reading()
            if reading is not None and (found is None or not self._failing):
                await asyncio.shield(reading)
                found = rules.choose(self._keys, header)
        if found is None:
            raise Unauthenticated if self._keys else IssuerUnavailable
        return found

    def _start_reading(self) -> asyncio.Task[None] | None:
        """The reading that is going on, or begins now; None when it is too early for another."""
        if self._reading is None and time.monotonic() >= self._next_read_time:
            self._reading = asyncio.create_task(self._read(), name="jwks")
        return self._reading

    async def _read(self) -> None:
        try:
            self._keys = rules.keys(await self._source())
            self._stale_time = time.monotonic() + MAX_AGE_SECONDS
            self._failing = False
        except (OutboundError, OSError, ValueError) as error:
            self._failing = True
            log.warning("issuer_keys_unavailable", error=str(error), known=len(self._keys))
        finally:
            self._next_read_time = time.monotonic() + MIN_INTERVAL_SECONDS
            self._reading = None
