"""Schedules that fire, on a clock of the test's own where it needs one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from blobhub_server.blobtypes.capabilities import Invocable
from blobhub_server.blobtypes.contract import Host
from blobhub_server.clock import Clock, utc_now
from blobhub_server.db.records import Mapper
from blobhub_server.scheduler import blob_type
from blobhub_server.scheduler.arming import DUE, Arming
from blobhub_server.scheduler.engine.engine import Engine
from blobhub_server.scheduler.rules.firing import Firing
from blobhub_server.scheduler.rules.schedule import Schedule
from blobhub_server.scheduler.store.firing import firings
from blobhub_server.scheduler.store.schedule import schedules
from blobhub_server.scheduler.upkeep import Upkeep
from waiting import until

_FIRING, _SCHEDULE = Mapper(Firing, firings), Mapper(Schedule, schedules)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


class SetClock:
    """A clock that stands where it was set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Firer:
    """The engine of a server, and what it stores."""

    host: Host
    engine: Engine
    clock: Clock
    invocable: Invocable

    async def set(self, now: datetime) -> None:
        """Set the clock, and have the engine look at it, as it does once a minute."""
        assert isinstance(self.clock, SetClock)
        self.clock.now = now
        self.host.bell.ring(DUE)

    async def arm(self, now: datetime, **changed: Any) -> None:
        """Have all schedules be due next as if they had been saved at a time; `changed` are other columns to set."""
        arming = Arming(replace(self.host, clock=lambda: now))
        for schedule in await self.schedules():
            async with self.host.db.write() as tx:
                await arming.go_on(tx, schedule)
                row = _SCHEDULE.row(schedule) | changed
                await tx.execute(schedules.update().where(schedules.c.id == schedule.id).values(row))

    async def have_due(self, time: datetime) -> None:
        """Have all schedules be due at a time, and ring the engine."""
        async with self.host.db.write() as tx:
            await tx.execute(schedules.update().values(next_nominal_time=time, next_due_time=time))
        self.host.bell.ring(DUE)

    async def schedules(self) -> list[Schedule]:
        async with self.host.db.read() as tx:
            return _SCHEDULE.all(await tx.execute(_SCHEDULE.select().order_by(schedules.c.id)))

    async def schedule(self) -> Schedule:
        (only,) = await self.schedules()
        return only

    async def firings(self) -> list[Firing]:
        """All firings, in the order of their numbers."""
        async with self.host.db.read() as tx:
            return _FIRING.all(await tx.execute(_FIRING.select().order_by(firings.c.blob_id, firings.c.sequence)))

    async def fired(self, count: int) -> list[Firing]:
        """All firings, once there are so many."""

        async def enough() -> list[Firing]:
            found = await self.firings()
            return found if len(found) >= count else []

        return await until(enough)

    async def settled(self) -> list[Firing]:
        """All firings, once nothing is due any more; the next one is waited for a minute, however many there are."""

        async def progress() -> tuple[int, int]:
            now = self.clock()
            due = sa.select(sa.func.count()).where(schedules.c.next_due_time <= now)
            async with self.host.db.read() as tx:
                left = (await tx.execute(due)).scalar_one()
                return left, (await tx.execute(sa.select(sa.func.count()).select_from(firings))).scalar_one()

        async def is_further(than: tuple[int, int]) -> bool:
            return await progress() != than

        while (found := await progress())[0]:
            await until(lambda found=found: is_further(found))
        return await self.firings()


@contextmanager
def engines(clock: Clock = utc_now) -> Iterator[list[Firer]]:
    """Collects the engines of the servers that are started meanwhile, which go by a clock.

    On a clock of the test's, nothing else looks at next times: upkeep goes by the machine's, by which it was ahead.
    """
    found: list[Firer] = []

    class Seen(Engine):
        def __init__(self, host: Host, invocable: Invocable, arming: Arming) -> None:
            ticking = replace(host, clock=clock)
            super().__init__(ticking, invocable, Arming(ticking))
            found.append(Firer(host=host, engine=self, clock=clock, invocable=invocable))

    class Idle(Upkeep):
        def on_serving(self) -> None:
            pass

    blob_type.Engine = Seen
    blob_type.Upkeep = Idle if isinstance(clock, SetClock) else Upkeep
    try:
        yield found
    finally:
        blob_type.Engine, blob_type.Upkeep = Engine, Upkeep


def utc(text: str) -> datetime:
    """A time in UTC: `2027-03-28 01:30`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
