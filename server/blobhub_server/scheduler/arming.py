"""Arming: which documents are at work, and when each is due next.

What is armed is the content of the blob's default revision. All of this runs in the transaction that changes it.
"""

from __future__ import annotations

from datetime import datetime

from blobhub_server.background import Turns
from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.db.engine import Transaction
from blobhub_server.scheduler.rules.document import ScheduleDocument
from blobhub_server.scheduler.rules.schedule import Schedule, ScheduleVersion
from blobhub_server.scheduler.rules.timing import Timing, due_time
from blobhub_server.scheduler.store import schedule as store
from blobhub_server.scheduler.store import version as version_store
from blobhub_server.scheduler.timetable import TZDATA_VERSION

DUE = "schedules"
"""The topic that is rung when a schedule may be due earlier than was known."""
PART = 200
"""How many schedules are armed in one go."""


class Arming:
    """Arms schedules."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def default_revision_id(self, tx: Transaction, blob_id: str) -> str:
        """The default revision of a blob, as the transaction sees it; empty when the blob is gone."""
        found = await self._host.revisions.resolve(tx, f"{blob_id}@default")
        return found.resource.id if found is not None and isinstance(found.resource, RevisionView) else ""

    async def arm(self, tx: Transaction, schedule: Schedule, version: ScheduleVersion | None) -> None:
        """Have a document, or none, be at work under a locked schedule. The caller stores the schedule.

        The next time is the first one after now. What was due by now stays due, unless nothing is armed any more.
        """
        now = self._host.clock()
        was_due = schedule.next_due_time is not None and schedule.next_due_time <= now
        document = None if version is None else ScheduleDocument.read(version.document)
        schedule.version_id = None if version is None else version.id
        schedule.repeat = None if document is None else document.repeat
        if document is None or not was_due:
            self.set_next(schedule, document, now)
            await self._ring(tx, schedule)

    async def go_on(self, tx: Transaction, schedule: Schedule) -> None:
        """Reckon the next time of a locked schedule from now on, as when it is enabled, disabled, paused or resumed.

        The caller stores the schedule.
        """
        document = None
        if schedule.version_id is not None:
            document = ScheduleDocument.read((await version_store.get(tx, schedule.version_id)).document)
        self.set_next(schedule, document, self._host.clock())
        await self._ring(tx, schedule)

    def set_next(
        self, schedule: Schedule, document: ScheduleDocument | None, after: datetime, timing: Timing | None = None
    ) -> None:
        """Set the first time after an instant, of the document that is armed, as the next one; none unless it will fire.

        `timing` is the document's, if that has been read.
        """
        nominal = None
        if document is not None and schedule.waits_for_time:
            nominal = (timing or Timing.read(document)).next_after(after)
        schedule.tzdata, schedule.reckon_time = TZDATA_VERSION, after
        schedule.next_nominal_time = nominal
        schedule.next_due_time = None
        if document is not None and nominal is not None:
            schedule.next_due_time = due_time(schedule.id, nominal, document.jitter)

    async def arm_blob(self, tx: Transaction, blob_id: str, revision_id: str) -> None:
        """Arm what a revision holds, which is the default one from now on; the blob is locked.

        Schedules whose document is the same go on as they are, and are not touched.
        """
        names: set[str] = set()
        after, turns = "", Turns()
        while entries := await self._host.contents.list(tx, revision_id, after=after, limit=PART):
            names.update(entry.name for entry in entries)
            rows = await store.find_some(tx, blob_id, [entry.name for entry in entries], lock=True)
            digests = {rows[entry.name].id: entry.digest for entry in entries}
            versions = await version_store.find_some(tx, digests.items())
            changed = []
            for schedule in rows.values():
                version = versions[schedule.id, digests[schedule.id]]
                if schedule.version_id != version.id:
                    await self.arm(tx, schedule, version)
                    changed.append(schedule)
                await turns.pause()
            await store.update(tx, changed)
            after = entries[-1].name
        await self._disarm_others(tx, blob_id, names)

    async def _disarm_others(self, tx: Transaction, blob_id: str, names: set[str]) -> None:
        """Stop the armed schedules of a blob that have none of these aliases."""
        after = ""
        while armed := await store.lock_armed(tx, blob_id, after=after, limit=PART):
            missing = [schedule for schedule in armed if schedule.alias not in names]
            for schedule in missing:
                await self.arm(tx, schedule, None)
            await store.update(tx, missing)
            after = armed[-1].id

    async def _ring(self, tx: Transaction, schedule: Schedule) -> None:
        if schedule.next_due_time is not None:
            await self._host.bell.ring_after_commit(tx, [DUE])
