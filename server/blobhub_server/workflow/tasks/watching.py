"""How queues are watched: by counting anew whenever something may have changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Set
from dataclasses import dataclass
from datetime import datetime

from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.rpc.transport_error import ShuttingDown
from blobhub_server.turnstile import Party
from blobhub_server.workflow.rules.task import queue_topic
from blobhub_server.workflow.store import task as store
from blobhub_server.workflow.tasks.leasing import Leasing, Queue

PAUSE_SECONDS = 0.5
"""How long a watch rests after it has counted, because counting reads all that waits."""
LOOK_SECONDS = 4.0
"""A watch counts after this long without a ring: what is leased, and what runs out, rings for nobody."""


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """How many tasks of a queue wait, since when the oldest is there, and how many each worker has.

    `connected` are the workers that wait for tasks at this server, with or without any.
    """

    waiting: int
    oldest: datetime | None
    leased: Mapping[str, int]
    connected: Set[str]


async def count_load(tx: Transaction, queue: Queue, leasing: Leasing) -> QueueLoad:
    """Count what is in a queue, and who is at it."""
    waiting, oldest = await store.count_waiting(tx, *queue)
    leased = await store.count_leased(tx, *queue)
    return QueueLoad(waiting=waiting, oldest=oldest, leased=leased, connected=leasing.connected(queue))


async def watch_load(host: Host, queue: Queue, leasing: Leasing, party: Party) -> AsyncIterator[QueueLoad]:
    """Yield what is in a queue, now and whenever it is another. Raises ShuttingDown when the server drains."""
    last: QueueLoad | None = None
    async with host.bell.listen(queue_topic(*queue)) as listener:
        while True:
            async with host.db.scan(party, patient=True) as tx:
                load = await count_load(tx, queue, leasing)
            if changed := load != last:
                last = load
                yield load
            if host.drain.draining:
                raise ShuttingDown(None)
            await asyncio.sleep(PAUSE_SECONDS)
            if not changed:  # What has just come is often leased at once, so one look more follows each change.
                await listener.wait(LOOK_SECONDS)
