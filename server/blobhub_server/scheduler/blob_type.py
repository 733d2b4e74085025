"""The scheduler blob type: what `blobhub.compute.scheduler` is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from blobhub_server.blobtypes.capabilities import Invocable
from blobhub_server.blobtypes.contract import BlobType, Content, Given, Host, Opened
from blobhub_server.blobtypes.values import Dependents
from blobhub_server.db.engine import Transaction
from blobhub_server.db.schema import IdQuery
from blobhub_server.errors import Violation
from blobhub_server.scheduler.errors import TYPE
from blobhub_server.scheduler.rules.document import ScheduleDocument
from blobhub_server.scheduler.settings import SchedulerSettings
from blobhub_server.scheduler.store import MIGRATIONS, TABLES
from blobhub_server.scheduler.store import firing as firing_store
from blobhub_server.scheduler.store import schedule as store
from blobhub_server.scheduler.store import version as version_store


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
    tables = TABLES
    migrations = MIGRATIONS

    @asynccontextmanager
    async def open(self, host: Host, given: Given) -> AsyncIterator[Opened]:
        """Serve schedules."""
        yield Opened(services=[], in_use=_in_use, delete=_delete)

    async def validate(self, content: Content) -> list[Violation]:
        """Every schedule must be readable. There need not be any."""
        found = []
        for entry in await content.list():
            try:
                ScheduleDocument.read((await content.read(entry)).decode())
            except (ValueError, KeyError, TypeError) as error:
                found.append(Violation(f"schedules[{entry.name}]", f"cannot be read: {error}"))
        return found


async def _in_use(tx: Transaction, blob_id: str) -> Sequence[Dependents]:
    """What would fire in a scheduler."""
    return [await store.dependents_in_blob(tx, blob_id)]


async def _delete(tx: Transaction, blob_ids: IdQuery) -> None:
    """Remove all schedules of schedulers, and their history. Executions that they have started go on."""
    await firing_store.delete_all(tx, blob_ids)
    await version_store.delete_all(tx, blob_ids)
    await store.delete_all(tx, blob_ids)
