"""How tasks come to workers: one desk for each queue that workers of this server wait at.

A desk leases for all of its workers in one transaction, whenever the queue's bell rings or a lease runs out, and hands out
what it got. It asks for the first time that a task may be leased at, which an index knows, and sleeps until then; so neither
workers nor leases are polled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.db.notify import Listener
from blobhub_server.errors import LimitExceeded, StorageUnavailable
from blobhub_server.rpc.transport_error import ShuttingDown
from blobhub_server.workflow.errors import LeaseLost, WorkerOverdue
from blobhub_server.workflow.rules.task import Failure, Lease, Task, lease_of, queue_topic
from blobhub_server.workflow.store import task as store
from blobhub_server.workflow.tasks.ending import End, Ending

log = structlog.get_logger()

MAX_SLEEP_SECONDS = 60.0
"""A sleep is cut after this long, because the database's clock may be set while the clock of sleeps goes on."""
MIN_SLEEP_SECONDS = 0.05
"""How long a desk waits at least where what is due could not be leased: somebody else has it locked."""
MAX_LOST_LEASES = 10
"""How many leases of a task may run out. What kills whoever does it would else kill workers for ever."""
MAX_AT_ONCE = 16
"""How many tasks a worker is leased in a row at most, so that those beside it get some as well."""
RETRY_SECONDS = 1.0

Queue = tuple[str, str]
"""A queue: its organization's id, and its name there."""


@dataclass(eq=False, slots=True)
class Seat:
    """A worker that waits at a desk. `tasks` are leased and not handed out yet.

    `since` is an id from before its first lease. It is `overdue` once it has let one run out.
    """

    worker: str
    since: str
    maximum: int
    span: timedelta
    tasks: deque[Task] = field(default_factory=deque)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    overdue: bool = False


class Desk:
    """Leases the tasks of one queue to the workers at it. It runs while there are any, or leases to give back."""

    def __init__(self, host: Host, queue: Queue, ending: Ending) -> None:
        self.seats: deque[Seat] = deque()
        self._host = host
        self._ending = ending
        self._queue = queue
        self._listener: Listener | None = None
        self._returned: list[Lease] = []

    def sit(self, seat: Seat) -> None:
        """Have a worker wait for tasks."""
        self.seats.append(seat)
        self._wake()
        self._host.bell.ring(queue_topic(*self._queue))

    def leave(self, seat: Seat) -> None:
        """Have a worker wait no more; what it was leased and not handed is given back."""
        self.seats.remove(seat)
        self._returned += [lease_of(task) for task in seat.tasks]
        self._wake()
        self._host.bell.ring(queue_topic(*self._queue))

    def _wake(self) -> None:
        if self._listener is not None:
            self._listener.ring()

    async def run(self) -> None:
        """Lease until nobody waits any more."""
        async with self._host.bell.listen(queue_topic(*self._queue)) as listener:
            self._listener = listener
            await self._run(listener)

    async def _run(self, listener: Listener) -> None:
        while self.seats or self._returned:
            try:
                seconds = await self._lease()
            except StorageUnavailable as error:
                self._host.db.trouble.report(error)
                seconds = RETRY_SECONDS
            except Exception:
                log.exception("tasks_not_leased", queue=self._queue[1])
                seconds = RETRY_SECONDS
            if self._host.drain.draining:
                for seat in self.seats:
                    seat.ready.set()
            await listener.wait(seconds)

    async def _lease(self) -> float:
        """Lease what may be leased to those who have room; return how long until there may be more."""
        if self._returned:
            await self._give_back()
        async with self._host.db.read() as tx:
            seconds = await store.seconds_to_next(tx, *self._queue)
            if seconds is None or seconds > 0:
                return min(MAX_SLEEP_SECONDS, seconds or MAX_SLEEP_SECONDS)
            leased = await store.count_leased(tx, *self._queue)
            self._find_overdue(await store.last_overdue(tx, *self._queue))
        rooms = [(seat, seat.maximum - leased.get(seat.worker, 0)) for seat in self.seats if not seat.overdue]
        free = [(seat, room) for seat, room in rooms if room > 0]
        if not free or self._host.drain.draining:
            return await self._seconds_to_expiry()
        self.seats.rotate(-1)

        async def lease(tx: Transaction) -> list[tuple[Seat, list[Task]]]:
            return [item async for item in self._fill(tx, free)]

        handed = await self._host.db.transact(lease)
        for seat, leased_tasks in handed:
            tasks = [task for task in leased_tasks if task.lost_leases <= MAX_LOST_LEASES]
            seat.tasks += tasks
            seat.ready.set()
            if seat not in self.seats:  # It left while these were leased.
                self._returned += [lease_of(task) for task in tasks]
        for task in (task for _, tasks in handed for task in tasks if task.lost_leases > MAX_LOST_LEASES):
            await self._give_up(task)
        return 0.0 if any(tasks for _, tasks in handed) else MIN_SLEEP_SECONDS

    def _find_overdue(self, overdue: Mapping[str, str]) -> None:
        """Lease nothing more to those who have let a lease run out.

        One that is dead or frozen, while its connection is not, would else take tasks again and again and let them wait.
        """
        for seat in self.seats:
            if overdue.get(seat.worker, "") > seat.since:
                seat.overdue = True
                seat.ready.set()

    async def _give_up(self, task: Task) -> None:
        """Fail a task that was leased for this, so that it is locked after its execution, as by all who end tasks."""
        message = f"{task.lost_leases} leases of it ran out: whoever does it dies, say, or cannot be reached"
        failure = Failure(reason="LEASES_LOST", message=message, retryable=True)
        with suppress(LeaseLost, LimitExceeded):  # It is over, or there is no room to say so; then this lease runs out too.
            await self._ending.end(End(lease=lease_of(task), failure=failure))

    async def _seconds_to_expiry(self) -> float:
        """How long until the next lease runs out: one that ends before rings."""
        async with self._host.db.read() as tx:
            seconds = await store.seconds_to_expiry(tx, *self._queue)
        return MAX_SLEEP_SECONDS if seconds is None else min(MAX_SLEEP_SECONDS, seconds)

    async def _fill(self, tx: Transaction, free: list[tuple[Seat, int]]) -> AsyncIterator[tuple[Seat, list[Task]]]:
        """Lease to those who have room, in turns, until nothing is left."""
        for seat, room in free:
            most = min(room, MAX_AT_ONCE)
            tasks = await store.lease(
                tx, *self._queue, worker=seat.worker, lease_id=self._host.ids(), span=seat.span, most=most
            )
            yield seat, tasks
            if len(tasks) < most:
                return

    async def _give_back(self) -> None:
        returned = list(self._returned)

        async def work(tx: Transaction) -> None:
            for lease in returned:
                await store.give_back(tx, lease)
            await self._host.bell.announce(tx, [queue_topic(*self._queue)])

        await self._host.db.transact(work)
        del self._returned[: len(returned)]


class Leasing:
    """The desks of this server."""

    def __init__(self, host: Host, ending: Ending) -> None:
        self._host = host
        self._ending = ending
        self._desks: dict[Queue, Desk] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End all desks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stream(self, queue: Queue, *, worker: str, maximum: int, span: timedelta) -> AsyncIterator[list[Task]]:
        """Lease tasks of a queue to a worker, so many at a time at most, and yield them as they come.

        What was yielded is the worker's. Raises WorkerOverdue once it has let a lease run out, and ShuttingDown when the
        server drains.
        """
        async with self._at_desk(queue, Seat(worker=worker, since=self._host.ids(), maximum=maximum, span=span)) as seat:
            while True:
                await seat.ready.wait()
                seat.ready.clear()
                tasks = [*seat.tasks]
                seat.tasks.clear()
                if tasks:
                    yield tasks
                elif self._host.drain.draining:
                    raise ShuttingDown(None)
                elif seat.overdue:
                    raise WorkerOverdue

    def connected(self, queue: Queue) -> Set[str]:
        """The names of the workers that wait at this server for tasks of a queue, or for more of them."""
        desk = self._desks.get(queue)
        return frozenset() if desk is None else frozenset(seat.worker for seat in desk.seats)

    @asynccontextmanager
    async def _at_desk(self, queue: Queue, seat: Seat) -> AsyncIterator[Seat]:
        desk = self._desks.get(queue)
        if desk is None:
            desk = self._desks[queue] = Desk(self._host, queue, self._ending)
            task = asyncio.create_task(self._run(queue, desk), name=f"desk of {queue[1]}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        desk.sit(seat)
        try:
            yield seat
        finally:
            desk.leave(seat)

    async def _run(self, queue: Queue, desk: Desk) -> None:
        try:
            await desk.run()
        finally:
            # In one step with its last look at who waits, so nobody sits down at a desk that is closed.
            del self._desks[queue]
