"""Secrets for tests, marked so that they are recognised wherever they come out."""

from __future__ import annotations

import secrets

MARKER = 'BHCANARY"%\\'
"""What every marked secret begins with: characters that JSON and URLs escape are among them."""

ISSUED: list[str] = []
"""All that were made in this run."""


def secret(label: str) -> str:
    """A secret that nothing else is equal to."""
    made = f"{MARKER}{secrets.token_hex(16)} {label}"
    ISSUED.append(made)
    return made
