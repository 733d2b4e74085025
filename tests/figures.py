"""What tests have measured, or how much they have tried: a line each, printed at the end of a run, parallel or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

FIGURE = "figure"

Figure = Callable[[str], None]
"""Tells a figure of the running test."""


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Tell a figure of the running test."""
    return lambda told: record_property(FIGURE, told)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the figures of all tests that passed."""
    figures = [
        (report.nodeid.rpartition("/")[2], told)
        for report in terminalreporter.stats.get("passed", [])
        for name, told in report.user_properties
        if name == FIGURE
    ]
    if figures:
        terminalreporter.section("figures")
    for test, told in sorted(figures):
        terminalreporter.write_line(f"{test}: {told}")
