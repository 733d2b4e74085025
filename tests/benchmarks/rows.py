"""How figures are printed: a row each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def row(name: str, figure: str, ratio: str = "") -> None:
    print(f"{name:<58} {figure:>26} {ratio:>34}", flush=True)


def percentile(took: Sequence[float], part: float) -> float:
    """The figure that such a part of all does not exceed."""
    return sorted(took)[max(0, math.ceil(len(took) * part) - 1)]


def spread(took: Sequence[float]) -> str:
    """Milliseconds: the median, and what one in a hundred takes."""
    return f"p50 {statistics.median(took):.2f} ms  p99 {percentile(took, 0.99):.2f} ms"


def full_spread(took: Sequence[float]) -> str:
    """The same with the largest one."""
    return f"p50 {statistics.median(took):.1f}  p99 {percentile(took, 0.99):.1f}  max {max(took):.1f} ms"
