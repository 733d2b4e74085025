"""Spans of seconds in data inputs: for how long something is waited."""

from __future__ import annotations

import math
from typing import Any

from blobhub_server.workflow.components.contract import Inputs
from blobhub_server.workflow.values import is_number

MAX_SECONDS = 366 * 86400.0
"""A year."""


def is_span(value: Any) -> bool:
    """Whether a plain value is a span that can be waited for, which may be 0."""
    return is_number(value) and math.isfinite(value) and 0 <= value <= MAX_SECONDS


def timeout_problems(settings: Inputs) -> list[tuple[str, str]]:
    """What is wrong with the plain value of the data input `timeout`, if there is one, which leaves some time."""
    timeout = settings.get("timeout")
    if timeout is None or (is_span(timeout) and timeout > 0):
        return []
    return [("timeout", "must be a number above 0, and at most a year")]


def timeout_of(settings: Inputs) -> float | None:
    """The seconds of `timeout`; None without an end."""
    timeout = settings.get("timeout")
    return None if timeout is None else float(timeout)
