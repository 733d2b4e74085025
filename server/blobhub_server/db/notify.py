"""Doorbells: "something may have happened". They carry nothing; who hears one reads the database.

In this process a ring is a flag. Between servers on one PostgreSQL it travels by LISTEN/NOTIFY, which a commit delivers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import sqlalchemy as sa
import structlog

from blobhub_server.db.engine import Database, Transaction

log = structlog.get_logger()

CHANNEL = "blobhub"


class Ringing:
    """One listener's flag."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Set the flag."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for the flag and clear it; False when so many seconds passed without a ring.

        A ring between two waits is not lost.
        """
        if not self._event.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._event.wait()
            except TimeoutError:
                return False
        self._event.clear()
        return True


class Doorbell:
    """The doorbells of a server, by topic."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._listeners: dict[str, set[Ringing]] = {}

    def ring(self, topic: str) -> None:
        """Wake this server's listeners of a topic."""
        for listener in self._listeners.get(topic, ()):
            listener.ring()

    def wake_all(self) -> None:
        """Wake every listener: rings may have been missed, or the server is going away."""
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.ring()

    async def announce(self, tx: Transaction, topics: Iterable[str]) -> None:
        """Ring on all other servers when `tx` commits."""
        if not self._db.exclusive:
            notify = sa.select(sa.func.pg_notify(CHANNEL, sa.bindparam("topic")))
            for topic in topics:
                await tx.execute(notify, {"topic": topic})

    @asynccontextmanager
    async def listen(self, topic: str) -> AsyncIterator[Ringing]:
        """Listen to a topic from here on: arm it, then read, then wait."""
        ringing = Ringing()
        listeners = self._listeners.setdefault(topic, set())
        listeners.add(ringing)
        try:
            yield ringing
        finally:
            listeners.discard(ringing)
            if not listeners:
                self._listeners.pop(topic, None)

    @asynccontextmanager
    async def hearing(self) -> AsyncIterator[None]:
        """Hear other servers for as long as this is entered."""
        if self._db.exclusive:
            yield
            return
        task = asyncio.create_task(self._hear(), name="doorbell")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _hear(self) -> None:
        """Keep a connection that listens; after every new one, wake all, since rings may have been missed."""
        import asyncpg  # noqa: PLC0415  an extra, and slow to import

        url = self._db.url.set(drivername="postgresql").render_as_string(hide_password=False)
        wait = 0.1
        while True:
            try:
                connection = await asyncpg.connect(url)
                try:
                    lost = asyncio.Event()
                    connection.add_termination_listener(lambda *_, lost=lost: lost.set())
                    await connection.add_listener(CHANNEL, self._heard)
                    self.wake_all()
                    wait = 0.1
                    await lost.wait()
                finally:
                    await connection.close(timeout=1)
            except (OSError, asyncpg.PostgresError, TimeoutError):
                log.warning("doorbell_lost", retry_in=wait)
                await asyncio.sleep(wait)
                wait = min(wait * 2, 5.0)

    def _heard(self, _connection: Any, _pid: int, _channel: str, topic: str) -> None:
        self.ring(topic)
