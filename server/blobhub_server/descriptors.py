"""File descriptors: as many as the operating system lets the server have, and not all of them for connections.

A process may have 1,024 on many machines unless it asks for more. Callers who connect and say nothing would take them all,
and the server could open neither its database nor an object.
"""

from __future__ import annotations

import resource
from contextlib import suppress

import structlog

from blobhub_server.config import Settings
from blobhub_server.start import StartError

log = structlog.get_logger()

RESERVED = 128
"""How many are kept for what the server itself opens: its database, objects, script workers."""

MIN_CONNECTIONS = 16


class TooFewDescriptors(StartError):
    """The server may open so few files that it could not serve."""


def with_room(settings: Settings) -> Settings:
    """Take as many descriptors as there may be; the settings, with fewer connections where these are not enough.

    Raises TooFewDescriptors.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    ports = 2 if settings.inference_listen is None else 3
    connections = (allowed - RESERVED) // ports
    if connections >= settings.max_connections:
        return settings
    if connections < MIN_CONNECTIONS:
        least = RESERVED + ports * MIN_CONNECTIONS
        raise TooFewDescriptors(f"a process may have {allowed} files open here, and a server needs {least}; see `ulimit -n`")
    log.warning("few_file_descriptors", allowed=allowed, max_connections=connections, wanted=settings.max_connections)
    return settings.model_copy(update={"max_connections": connections})
