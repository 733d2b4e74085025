"""Output: structured log lines on standard error, and the server's address on standard output.

No line ever holds a request, its metadata or a key; the one exception is the administrator's key, once, at the first
start, on standard output.
"""

from __future__ import annotations

import logging
import sys
import traceback
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

from blobhub_server.config import Settings
from blobhub_server.start import StartError

_QUOTING_STATES = ("22", "23")
"""Classes of SQLSTATE (data exceptions, broken constraints) whose messages quote values and whole rows."""


class UnknownLogLevel(StartError):
    """The log level is not one of logging's."""


def set_up(settings: Settings) -> None:
    """Set the level and the format of log lines. Raises UnknownLogLevel."""
    level = logging.getLevelNamesMapping().get(settings.log_level.upper())
    if level is None:
        raise UnknownLogLevel("BLOBHUB_LOG_LEVEL: must be debug, info, warning or error")
    render = (
        structlog.processors.JSONRenderer()
        if settings.log_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_write_exception)
    )
    errors = [structlog.processors.ExceptionRenderer(_render_exception)] if settings.log_json else []
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *errors,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Lossy(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(logging.BASIC_FORMAT))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


class KeyNotShown(StartError):
    """The administrator's key, which is shown once, cannot be printed."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the administrator's key cannot be printed on standard output, and was not made: {error}")


def show_key(admin_key: str) -> None:
    """Print the administrator's key, which is about to be made. Raises KeyNotShown."""
    try:
        print(f"Administrator's key, shown once: {admin_key}", flush=True)  # noqa: T201  this is the program's output
    except OSError as error:
        raise KeyNotShown(error) from None


def announce(address: str) -> None:
    """Print the server's address, if anybody reads that."""
    with suppress(OSError):
        print(f"BlobHub serves on {address}", flush=True)  # noqa: T201  this is the program's output


def format_error(error: BaseException) -> str:
    """An exception and its causes as Python formats them, but without values that a database quotes."""
    lines, seen = [], set()
    following: BaseException | None = error
    while following is not None and following not in seen:
        seen.add(following)
        lines.append("".join([*traceback.format_tb(following.__traceback__), _error_text(following)]))
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
    return "\nwhich led to:\n".join(reversed(lines))


def _error_text(error: BaseException) -> str:
    state = str(getattr(getattr(error, "orig", error), "sqlstate", None) or "")
    if state.startswith(_QUOTING_STATES):
        return f"{type(error).__qualname__}: SQLSTATE {state}; what the database said may quote values"
    return "".join(traceback.format_exception_only(error)).rstrip()


def _render_exception(exc_info: Any) -> str:
    return format_error(exc_info[1])


def _write_exception(stream: TextIO, exc_info: Any) -> None:
    stream.write(format_error(exc_info[1]))


class _Lossy:
    """A file for log lines. Lines that cannot be written, on a full disk for example, are lost: no work fails for them."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Write text, or lose it."""
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with suppress(OSError):
            self._file.flush()


class _Lines(logging.Formatter):
    """Formats the exceptions in libraries' log lines as ours are."""

    def formatException(self, ei: Any) -> str:
        return format_error(ei[1])
