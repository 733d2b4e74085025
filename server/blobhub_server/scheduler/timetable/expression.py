"""Reads a cron expression of either grammar."""

from __future__ import annotations

import re
from functools import lru_cache

from blobhub_server.scheduler.timetable import crontab, eventbridge
from blobhub_server.scheduler.timetable.cron import Cron
from blobhub_server.scheduler.timetable.errors import InvalidCron

MAX_LENGTH = 1000
"""Characters of an expression. All sixty minutes in a list have 169."""

_BLANKS = " \t"


@lru_cache(maxsize=4096)  # croniter takes half a millisecond, and schedules share expressions
def parse_cron(text: str) -> Cron:
    """Read an expression. The number of its fields says which grammar it is in: six are AWS EventBridge's, five a crontab's.

    A word that begins with `@` is short for five fields. Raises `InvalidCron`.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidCron("expression", None, f"has {len(text)} characters; allowed are", str(MAX_LENGTH))
    words = text.strip(_BLANKS)
    if words.startswith("@"):
        words = _macro(words)
    fields = re.split(f"[{_BLANKS}]+", words)
    if len(fields) == len(crontab.FIELDS):
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
