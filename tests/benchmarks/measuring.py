"""How often something can be done a second: ours and a yardstick in turns, so that a drifting machine touches both."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable

Call = Callable[[], Awaitable[object]]

SECONDS = float(os.environ.get("SECONDS_EACH", "4"))
TURNS = 3


async def rate(call: Call, in_flight: int) -> tuple[float, list[float]]:
    """Calls a second with so many in flight, and how long each took, in milliseconds."""
    took: list[float] = []
    end = time.perf_counter() + SECONDS

    async def caller() -> None:
        while (start := time.perf_counter()) < end:
            await call()
            took.append((time.perf_counter() - start) * 1000)

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return len(took) / (time.perf_counter() - start), took


async def alternating(ours: Call, bare: Call, in_flight: int) -> tuple[float, float, list[float]]:
    """The median rates of two calls, and how long each of ours took."""
    totals: list[list[float]] = [[], []]
    took: list[float] = []
    for _ in range(TURNS):
        for place, call in enumerate((ours, bare)):
            figure, each = await rate(call, in_flight)
            totals[place].append(figure)
            if place == 0:
                took += each
    return statistics.median(totals[0]), statistics.median(totals[1]), took
