"""Why a server does not start, or may not do well: what an operator is told in one line."""

from __future__ import annotations


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""


class StartWarning(Exception):
    """Something looks as if it were wrong; the message says what."""
