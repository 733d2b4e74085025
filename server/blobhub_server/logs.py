"""What the server says: structured log lines on standard error, and its address on standard output.

No line ever holds a request, its metadata or a key; the one exception is the administrator's key, once, at the first
start, on standard output.
"""

from __future__ import annotations

import logging
import sys

import structlog

from blobhub_server.config import Settings
from blobhub_server.start import StartError


class UnknownLogLevel(StartError):
    """The log level is none of logging's."""


def set_up(settings: Settings) -> None:
    """Set the level and the form of log lines. Raises UnknownLogLevel."""
    level = logging.getLevelNamesMapping().get(settings.log_level.upper())
    if level is None:
        raise UnknownLogLevel("BLOBHUB_LOG_LEVEL: must be debug, info, warning or error")
    render = (
        structlog.processors.JSONRenderer()
        if settings.log_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    )
    errors = [structlog.processors.format_exc_info] if settings.log_json else []
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *errors,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)


def announce(address: str, admin_key: str | None) -> None:
    """Say where the server serves, and, at the first start, the administrator's key."""
    if admin_key is not None:
        print(f"Administrator's key, shown once: {admin_key}")  # noqa: T201  this is the program's output
    print(f"BlobHub serves on {address}", flush=True)  # noqa: T201  this is the program's output
