"""Trouble with the storage: what is told of it, and when it is over.

Whoever meets trouble reports it here and goes on in its own way. The first report has the storage probed, again and again
until it can be written to. While that fails the server is not ready, and one line a minute says so; one more says that it is
over.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import TypeVar

import structlog

from blobhub_server.errors import StorageUnavailable

log = structlog.get_logger()

Result = TypeVar("Result")

MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.05, 5.0
USABLE_ATTEMPT = 2
"""The attempt after which waits grow no longer while the storage can be written to, as when connections are lost."""

LINE_SECONDS = 60.0
CALM_SECONDS = 0.5
"""After a probe that worked the next one waits for so long, however many reports come."""

MAX_REASON_LENGTH = 200


def retry_seconds(attempt: int) -> float:
    """How long to wait after the failed attempt of this number, from 0: twice as long each time, up to a bound.

    Half of it is left to chance, so that those who met the same trouble do not come back at the same moment.
    """
    longest = min(MIN_RETRY_SECONDS * (1 << min(attempt, 16)), MAX_RETRY_SECONDS)
    return longest * random.uniform(0.5, 1)  # noqa: S311  it protects nothing


class StorageBusy(StorageUnavailable):
    """No connection to the database was free for long. Nothing is wrong with it, so it is not reported as trouble.

    Nothing was done. Whoever waits for the storage to be usable again tries again in the same way.
    """

    code, reason = "RESOURCE_EXHAUSTED", "STORAGE_BUSY"
    text = "no connection to the database was free for long; try again"


class Trouble:
    """What a server knows of the trouble with its storage."""

    def __init__(self) -> None:
        self._reported = asyncio.Event()
        self._usable = asyncio.Event()
        self._usable.set()
        self._times = 0
        self._last_line: float | None = None

    @property
    def down(self) -> bool:
        """Whether the storage could not be written to when it was probed last."""
        return not self._usable.is_set()

    def report(self, error: BaseException) -> None:
        """Report an error of the storage. The reports of a minute become one line. That it is busy is no trouble."""
        if isinstance(error, StorageBusy):
            return
        self._times += 1
        self._reported.set()
        if self._last_line is None or time.monotonic() - self._last_line >= LINE_SECONDS:
            self._say(error)

    async def pause(self, attempt: int) -> None:
        """Wait before trying again after the failed attempt of this number; hardly longer than the storage is down."""
        if self.down:
            with suppress(TimeoutError):
                async with asyncio.timeout(retry_seconds(attempt)):
                    await self._usable.wait()
            attempt = 0  # Those who have waited do not come all at once.
        await asyncio.sleep(retry_seconds(min(attempt, USABLE_ATTEMPT)))

    async def outlasted(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """What some work gives as soon as the storage can be used for it; it is done again after each trouble."""
        for attempt in count():
            try:
                return await work()
            except StorageUnavailable as error:
                self.report(error)
            await self.pause(attempt)
        raise AssertionError("the loop has no end")

    async def watch(self, probe: Callable[[], Awaitable[None]], set_ready: Callable[[bool], Awaitable[None]]) -> None:
        """Probe the storage after reports of trouble, and tell whether it can be written to, until cancelled.

        `probe` writes to the storage, and raises StorageUnavailable. A connection that was lost and is replaced makes no
        server unready.
        """
        while True:
            await self._reported.wait()
            await self._outlast(probe, set_ready)
            await asyncio.sleep(CALM_SECONDS)

    async def _outlast(self, probe: Callable[[], Awaitable[None]], set_ready: Callable[[bool], Awaitable[None]]) -> None:
        """Probe until that works."""
        since, attempt = time.monotonic(), 0
        while True:
            self._reported.clear()
            try:
                await probe()
                break
            except StorageUnavailable as error:
                if attempt == 0:
                    self._usable.clear()
                    self._last_line = None  # It is down, which is worth a line of its own.
                    await set_ready(False)
                self.report(error)
            except Exception:
                log.debug("storage_not_probed", exc_info=True)  # It answers, which is not what a storage does that is down.
                break
            await asyncio.sleep(retry_seconds(attempt))
            attempt += 1
        self._usable.set()
        if attempt:
            log.warning("storage_usable_again", seconds=round(time.monotonic() - since, 1))
            await set_ready(True)

    def _say(self, error: BaseException) -> None:
        # Of a timeout the cause is that asyncio has cancelled what took too long, which says nothing.
        cause = (error.__cause__ if isinstance(error, StorageUnavailable) else None) or error
        reason = f"{type(cause).__name__}: {cause}".splitlines()[0][:MAX_REASON_LENGTH]
        log.warning("storage_unusable", reason=reason, times=self._times)
        self._times, self._last_line = 0, time.monotonic()
