"""Waiting for what is about to be, with a deadline that a slow machine keeps too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TypeVar

DEADLINE_SECONDS = 60
"""A test that waits longer fails: what it waits for does not come."""

T = TypeVar("T")


async def until(condition: Callable[[], T | Awaitable[T]]) -> T:
    """Wait until a condition answers something true; what it answered. Raises TimeoutError."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            answer = condition()
            met = await answer if isawaitable(answer) else answer
            if met:
                return met
            await asyncio.sleep(0.01)


async def within_deadline(awaitable: Awaitable[T]) -> T:
    """What something answers. Raises TimeoutError."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await awaitable
