"""Waiting for what is about to be, with a deadline that a slow machine keeps too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TypeVar

import grpc

DEADLINE_SECONDS = 60
"""A test that waits longer fails: what it waits for does not come."""

BETWEEN_SECONDS = 0.01
BETWEEN_LOOKS = 4
"""Waiting takes so many times as long as looking: who asks a database anew all the time keeps others from it."""
MAX_BETWEEN_SECONDS = 0.2

T = TypeVar("T")


async def until(condition: Callable[[], T | Awaitable[T]]) -> T:
    """Wait until a condition answers something true; what it answered. Raises TimeoutError."""
    now = asyncio.get_running_loop().time
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            began = now()
            answer = condition()
            met = await answer if isawaitable(answer) else answer
            if met:
                return met
            await asyncio.sleep(max(BETWEEN_SECONDS, min(BETWEEN_LOOKS * (now() - began), MAX_BETWEEN_SECONDS)))


async def within_deadline(awaitable: Awaitable[T]) -> T:
    """What something answers. Raises TimeoutError."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await awaitable


async def refused_in_the_end(call: Callable[[], Awaitable[object]], code: grpc.StatusCode, reason: str) -> None:
    """Make a call until it is refused, with a code and a reason: a key and what it may are believed for a moment."""
    from blobhub_server.blobtypes.conformance import reason_of  # noqa: PLC0415  most of those who wait need no server

    async def is_refused() -> bool:
        try:
            await call()
        except grpc.aio.AioRpcError as error:
            if (error.code(), reason_of(error)) == (code, reason):
                return True
            raise
        return False

    await until(is_refused)


async def read_to_end(call: grpc.aio.UnaryStreamCall) -> None:
    """Read what is left of a stream of answers. Raises the error that it ends with."""
    while await call.read() is not grpc.aio.EOF:
        pass
