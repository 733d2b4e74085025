"""Reads a cron expression of either grammar."""

from __future__ import annotations

import re
from functools import lru_cache

from blobhub_server.scheduler.timetable import crontab, eventbridge
from blobhub_server.scheduler.timetable.cron import Cron
from blobhub_server.scheduler.timetable.errors import InvalidCron

MAX_LENGTH = 256
"""Characters of an expression. All sixty minutes in a list have 169."""

_BLANKS = " \t"
_WRAPPED = re.compile(r"(cron|rate|at)\(", re.IGNORECASE)
"""How expressions begin where AWS has them beside others."""
_WRITTEN = "an expression is its fields alone, such as 0 9 ? * MON-FRI * or */5 * * * *"


@lru_cache(maxsize=4096)  # croniter takes half a millisecond, and schedules share expressions
def parse_cron(text: str) -> Cron:
    """Read an expression. The number of its fields says which grammar it is in: six are AWS EventBridge's, five a crontab's.

    A word that begins with `@` is short for five fields. Raises `InvalidCron`.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidCron("expression", None, f"has {len(text)} characters; allowed are", str(MAX_LENGTH))
    words = text.strip(_BLANKS)
    if wrapped := _WRAPPED.match(words):
        raise InvalidCron("expression", f"{wrapped[1].lower()}()", "is not written here:", _WRITTEN)
    if words.startswith("@"):
        words = _macro(words)
    fields = re.split(f"[{_BLANKS}]+", words)
    if len(fields) == len(crontab.FIELDS):
        if eventbridge.ANY in fields:
            raise InvalidCron("expression", None, "has 5 fields, and ? is only among six; allowed are", _six())
        return crontab.read(fields)
    if len(fields) == len(eventbridge.FIELDS):
        return eventbridge.read(fields)
    raise InvalidCron(
        "expression", None, f"has {len(fields) if words else 0} fields; allowed are", f"{_six()}, or {_five()}"
    )


def _macro(word: str) -> str:
    if word.lower() not in crontab.MACROS:
        raise InvalidCron("expression", word, "is not one of", ", ".join(crontab.MACROS))
    return crontab.MACROS[word.lower()]


def _six() -> str:
    return f"six as in AWS EventBridge ({' '.join(field.name for field in eventbridge.FIELDS)})"


def _five() -> str:
    return f"five as in a crontab ({' '.join(field.name for field in crontab.FIELDS)})"
