"""Doorbells: "something may have happened". A ring carries no data; the listener reads the database.

In this process a ring sets a flag. Between servers it is a NOTIFY of PostgreSQL, delivered at the commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from blobhub_server.background import in_background
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.db.prepared import Prepared

CHANNEL = "blobhub"
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.1, 5.0
"""The backoff before a lost connection is made again."""

# Together below 5 s, in which the streams of a revoked key have to end.
CHECK_SECONDS, CHECK_TIMEOUT_SECONDS = 2.0, 2.0

# All topics in one statement: a commit pays for every round trip.
_payload = sa.func.unnest(sa.bindparam("payloads", type_=postgresql.ARRAY(sa.Text))).column_valued("payload")
_NOTIFY = Prepared(sa.select(sa.func.pg_notify(CHANNEL, _payload)))

RingHook = Callable[[str | None], None]
"""Called with the topic that another server has rung, or with None when rings may have been missed."""


class Listener:
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
        self._listeners: dict[str, set[Listener]] = {}
        self._hooks: list[RingHook] = []
        self._listener_pid = 0  # the backend that listens for this server and hears its own rings too; 0 before the first

    def on_remote_ring(self, hook: RingHook) -> None:
        """Have `hook` told of every ring of another server, before anybody here is woken."""
        self._hooks.append(hook)

    def ring(self, topic: str) -> None:
        """Wake this server's listeners of a topic."""
        for listener in self._listeners.get(topic, ()):
            listener.ring()

    def is_heard(self, topic: str) -> bool:
        """Whether anybody listens to a topic on this server."""
        return topic in self._listeners

    def wake_all(self) -> None:
        """Wake every listener, because rings may have been missed or the server shuts down."""
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.ring()

    async def announce(self, tx: Transaction, topics: Iterable[str]) -> None:
        """Ring on all other servers when `tx` commits."""
        payloads = [f"{self._listener_pid} {topic}" for topic in topics]
        if payloads and not self._db.exclusive:
            await tx.run(_NOTIFY, payloads=payloads)

    async def ring_after_commit(self, tx: Transaction, topics: Sequence[str]) -> None:
        """Ring here and on all other servers when `tx` commits."""
        await self.announce(tx, topics)
        for topic in topics:
            tx.after_commit(partial(self.ring, topic))

    @asynccontextmanager
    async def listen(self, topic: str) -> AsyncIterator[Listener]:
        """Listen to a topic. Enter this before reading the database, so that no ring is missed in between."""
        listener = Listener()
        listeners = self._listeners.setdefault(topic, set())
        listeners.add(listener)
        try:
            yield listener
        finally:
            listeners.discard(listener)
            if not listeners:
                self._listeners.pop(topic, None)

    @asynccontextmanager
    async def hearing(self) -> AsyncIterator[None]:
        """Receive the rings of other servers until the block is left."""
        if self._db.exclusive:
            yield
            return
        async with in_background(self._hear(), "doorbell"):
            yield

    async def _hear(self) -> None:
        """Keep a listening connection open; connect again whenever it is lost."""
        from blobhub_server.db.postgresql import connect  # noqa: PLC0415  an extra, and slow to import

        retry_seconds = MIN_RETRY_SECONDS
        while True:
            try:
                connection = await connect(self._db.url)
                retry_seconds = MIN_RETRY_SECONDS
                try:
                    await self._listen(connection)
                finally:
                    connection.terminate()
            except Exception as error:  # whatever it was: a server must not stop listening
                self._db.trouble.report(error)
                await asyncio.sleep(retry_seconds)
                retry_seconds = min(retry_seconds * 2, MAX_RETRY_SECONDS)

    async def _listen(self, connection: Any) -> None:
        """Listen until the connection is lost, which raises. Wake all first, because rings may have been missed."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda *_: lost.set())
        self._listener_pid = await connection.fetchval("SELECT pg_backend_pid()")
        await connection.add_listener(CHANNEL, self._on_notification)
        self._tell(None)
        self.wake_all()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await lost.wait()
            # Raises on a lost connection, also on one that a firewall dropped without telling this end.
            await connection.execute("SELECT 1", timeout=CHECK_TIMEOUT_SECONDS)

    def _on_notification(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        """Pass on a ring of another server. This server's own wake its listeners here, when their transactions commit.

        A ring that was announced before the listening connection of today was made counts as another server's.
        """
        listener_pid, _, topic = payload.partition(" ")
        if listener_pid != str(self._listener_pid):
            self._tell(topic)
            self.ring(topic)

    def _tell(self, topic: str | None) -> None:
        for hook in self._hooks:
            hook(topic)
