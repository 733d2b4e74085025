"""The scheduler blob type: what `blobhub.compute.scheduler` is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from blobhub.v1.scheduler_error_pb2 import SchedulerErrorReason

from blobhub_server.background import in_background
from blobhub_server.blobtypes.capabilities import Invocable
from blobhub_server.blobtypes.contract import BlobType, Check, Content, Given, Host, Limit, Opened, Service
from blobhub_server.blobtypes.values import Dependents
from blobhub_server.config import Settings
from blobhub_server.db.engine import Transaction
from blobhub_server.db.parts import remove_in_order
from blobhub_server.errors import Violation
from blobhub_server.scheduler.arming import Arming
from blobhub_server.scheduler.engine.engine import Engine
from blobhub_server.scheduler.errors import TYPE
from blobhub_server.scheduler.retention import Retention
from blobhub_server.scheduler.rules import limit
from blobhub_server.scheduler.rules.document import ScheduleDocument
from blobhub_server.scheduler.rules.spec import check
from blobhub_server.scheduler.schedules import Schedules
from blobhub_server.scheduler.services.firing import FiringService
from blobhub_server.scheduler.services.locating import locate_firing, locate_schedule
from blobhub_server.scheduler.services.schedule import ScheduleService
from blobhub_server.scheduler.settings import SchedulerSettings
from blobhub_server.scheduler.store import MIGRATIONS, TABLES
from blobhub_server.scheduler.store import firing as firing_store
from blobhub_server.scheduler.store import schedule as store
from blobhub_server.scheduler.store import version as version_store
from blobhub_server.scheduler.timetable import TZDATA_VERSION, find_zone, zone_names
from blobhub_server.scheduler.upkeep import Upkeep
from blobhub_server.start import StartError

SCHEDULES_AT_ONCE = 100
"""How many schedules a collection locks, and then looks for what refers to them."""


class SchedulerType(BlobType):
    """Schedules that invoke definitions when their time comes."""

    name = TYPE
    title = "Scheduler"
    description = (
        "Stores schedules, one-time and recurring, each in a time zone of its own, and starts definitions when their time "
        "comes: once each, with a history of what became of them."
    )

    needs = (Invocable,)
    settings = SchedulerSettings
    reasons = SchedulerErrorReason.DESCRIPTOR
    tables = TABLES
    migrations = MIGRATIONS

    def checks(self, settings: Settings, given: Given) -> list[Check]:
        """A check that there are time zones."""
        return [Check("time zones", _look_at_time_zones)]

    @asynccontextmanager
    async def open(self, host: Host, given: Given) -> AsyncIterator[Opened]:
        """Serve schedules, and fire them."""
        arming = Arming(host)
        invocable = given[Invocable]
        schedules, engine = Schedules(host, invocable, arming), Engine(host, invocable, arming)
        upkeep = Upkeep(host, arming, Retention(host, invocable, given[SchedulerSettings]))

        def on_serving() -> None:
            engine.on_serving()
            upkeep.on_serving()

        async with in_background(upkeep.run(), "upkeep of schedules"), engine.running():
            yield self._opened(host, schedules, arming, engine, on_serving)

    def _opened(
        self, host: Host, schedules: Schedules, arming: Arming, engine: Engine, on_serving: Callable[[], None]
    ) -> Opened:
        return Opened(
            services=[
                Service("blobhub.v1.ScheduleService", ScheduleService(host, schedules, arming)),
                Service("blobhub.v1.FiringService", FiringService(host, schedules, engine)),
            ],
            locators={"schedule": partial(locate_schedule, host), "firing": partial(locate_firing, host)},
            dependents=_dependents,
            in_use=_in_use,
            collect=_collect,
            on_serving=on_serving,
            on_default_moved=arming.arm_blob,
            limits=_limits(host),
        )

    async def validate(self, content: Content) -> list[Violation]:
        """There must be a schedule, and nothing may be wrong with any."""
        entries = await content.list()
        if not entries:
            return [Violation("schedules", "a scheduler needs at least one schedule")]
        found = []
        for entry in entries:
            document = ScheduleDocument.read((await content.read(entry)).decode())
            found += [Violation(f"schedules[{entry.name}].{wrong.field}", wrong.message) for wrong in check(document)]
        return found


async def _look_at_time_zones() -> str:
    """Read the rules of every zone."""
    names = zone_names()
    unread = [name for name in sorted(names) if not _is_readable(name)]
    if unread or not names:
        raise StartError(
            f"the rules of zones cannot be read ({', '.join(unread[:3]) or 'there are none'}); install tzdata anew"
        )
    return f"{len(names)} of tzdata {TZDATA_VERSION}"


def _is_readable(zone: str) -> bool:
    try:
        find_zone(zone)
    except (OSError, ValueError):
        return False
    return True


def _limits(host: Host) -> list[Limit]:
    """How much a scheduler may hold."""
    return [Limit(name=limit.SCHEDULES, description="Schedules in a revision", default=1_000, held=host.contents.fullest)]


async def _dependents(tx: Transaction, revision_id: str) -> Sequence[Dependents]:
    """What of all schedulers depends on a revision of any blob."""
    return [await version_store.dependents_on_target(tx, revision_id)]


async def _in_use(tx: Transaction, blob_id: str) -> Sequence[Dependents]:
    """What would fire in a scheduler."""
    return [await store.dependents_in_blob(tx, blob_id)]


async def _collect(tx: Transaction, blob_ids: Sequence[str], rows: int) -> int:
    """Remove rows of deleted schedulers: so many at most; return how many. Executions that they have started go on."""
    removed = 0
    while removed < rows and (schedule_ids := await store.lock_some(tx, blob_ids, SCHEDULES_AT_ONCE)):
        steps = [partial(each.collect, tx, schedule_ids) for each in (firing_store, version_store, store)]
        removed += await remove_in_order(steps, rows - removed)
    return removed + (await firing_store.collect_logs(tx, blob_ids, rows - removed) if removed < rows else 0)
