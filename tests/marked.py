"""Marked secrets: what no output may hold, and the register of all that were handed to a server or handed out by one."""

from __future__ import annotations

import secrets

MARKER = 'BHCANARY"%\\'
"""Begins every secret that tests make; its last three characters look different in JSON, in a URL and in a `repr`."""

ISSUED: dict[str, str] = {}
"""Every secret of this run, and what it is: `secret → label`."""


def made() -> str:
    """A new secret that nobody watches over, for tests that let one out on purpose."""
    return MARKER + secrets.token_hex(16)


def secret(label: str) -> str:
    """A new secret that no output may hold."""
    return planted(made(), label)


def planted(value: str, label: str = "planted") -> str:
    """Watch over a secret that came from elsewhere; of an API key its secret part, for its public id may be shown."""
    if value:
        ISSUED.setdefault(secret_part(value), label)
    return value


def secret_part(value: str) -> str:
    """What must stay secret of a value: of `bhk_<public id>_<secret><checksum>` all that follows the second `_`."""
    return value.split("_", 2)[2] if value.startswith("bhk_") and value.count("_") >= 2 else value
