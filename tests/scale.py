"""How big the tests are. One knob, `--scale`, sets it: 1 is full size, for a soak; the default shows the point quickly.

Only the fuzz of the wire has a number of its own, `--fuzz`: what it finds is rare and a request is cheap, so it is worth ten
times the requests in CI, where nothing else is worth more than the default.

The scale is known before any test module is imported, in every worker of a parallel run too, so sizes may stand in
decorators.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

Item = TypeVar("Item")

DEFAULT = 0.1
DEFAULT_FUZZ = 10_000

SLOW_MACHINES = (HealthCheck.too_slow,)
"""How long hypothesis takes to think of an example says nothing about us."""

SHARED_FIXTURES = (*SLOW_MACHINES, HealthCheck.function_scoped_fixture)
"""What a property suppresses whose examples share a database: each begins where the one before has ended."""

_scale = DEFAULT


def parse(text: str) -> float:
    """Read a scale: a number above 0, and 1 at most."""
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 0 < scale <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no scale: it is a number above 0, and 1 at most")
    return scale


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the knobs."""
    told = f"how big the tests are: rounds, requests, rows, kills, as a part of full size (default {DEFAULT})"
    parser.addoption("--scale", type=parse, default=DEFAULT, metavar="PART", help=told)
    told = f"how many requests the wire is fuzzed with, half of them on each database (default {DEFAULT_FUZZ})"
    parser.addoption("--fuzz", type=int, default=DEFAULT_FUZZ, metavar="REQUESTS", help=told)


def pytest_configure(config: pytest.Config) -> None:
    """Keep what the knob is set to."""
    global _scale  # noqa: PLW0603  one run has one scale, and decorators have no fixtures to get it from
    _scale = config.getoption("scale")
    settings.register_profile("any machine", deadline=None, suppress_health_check=SLOW_MACHINES)
    settings.load_profile("any machine")


def scaled(full: int, least: int) -> int:
    """A size that is `full` at scale 1, and never below `least`: with less, a test would not show what it says."""
    return min(full, max(least, round(full * _scale)))


def sample(items: Sequence[Item], shown: Callable[[Item], Iterable[Hashable]], seed: int) -> list[Item]:
    """As many of the items as the scale asks for, by the throw of a die, and enough to show whatever any of them shows."""
    seen: set[Hashable] = set()
    needed, more = [], []
    for item in random.Random(seed).sample(items, len(items)):
        new = set(shown(item)) - seen
        (needed if new else more).append(item)
        seen |= new
    return (needed + more)[: scaled(len(items), least=len(needed))]
