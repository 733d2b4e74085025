"""When keys were last used: collected in memory, and written at most once a minute for each key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import structlog

from blobhub_server.background import in_background
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database
from blobhub_server.errors import StorageUnavailable
from blobhub_server.platform.store import api_key as store

log = structlog.get_logger()

MIN_INTERVAL = timedelta(minutes=1)
WRITE_SECONDS = 5.0


class KeyUsage:
    """Collects which keys are used, and writes it to the database every few seconds."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._written: dict[str, datetime] = {}
        self._waiting: dict[str, datetime] = {}

    def record_use(self, key_id: str) -> None:
        """Record that a call came with this key."""
        now = self._clock()
        written = self._written.get(key_id)
        if written is None or now - written >= MIN_INTERVAL:
            self._waiting[key_id] = now

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Write until the block is left, and then what is still in memory."""
        async with in_background(self._write_forever(), "key usage"):
            yield
        await self._write()

    async def _write_forever(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self._write()

    async def _write(self) -> None:
        if not self._waiting:
            return
        times, self._waiting = self._waiting, {}
        try:
            async with self._db.write() as tx:
                await store.update_last_used(tx, times)
        except StorageUnavailable as error:
            self._db.trouble.report(error)
            self._waiting = times | self._waiting
            return
        except Exception:
            log.exception("key_usage_not_written")
            return
        horizon = self._clock() - MIN_INTERVAL
        self._written = {key: time for key, time in self._written.items() if time > horizon} | times
