"""Schedules: what is the same over all revisions of a blob, and the documents that were saved under an alias."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(slots=True)
class Schedule:
    """A schedule over all revisions of its blob: its alias, and what is not content.

    `version_id` is the document that is armed, the one in the default revision; None when that has no such schedule.
    `repeat` is the armed document's. `saved_revision_id` is where it was last saved.

    `next_nominal_time` and `next_due_time`, which has the jitter added, are None unless the schedule will fire. The next
    time is the first one after `reckon_time`, as the zone data of the version `tzdata` have it. `last_nominal_time` is the
    last time that fired or was skipped. `running_firing_id`, `queued_kind` and `queued_nominal_time` are for overlaps.

    `firing_count` is how many firings are kept. `forgotten_nominal_time` is the last time whose firing was removed: of no
    time up to it is it known any more whether it has fired.
    """

    id: str
    organization_id: str
    blob_id: str
    alias: str
    enabled: bool
    paused_by: str | None
    pause_note: str
    pause_time: datetime | None
    version_id: str | None
    repeat: str | None
    saved_revision_id: str
    next_nominal_time: datetime | None
    next_due_time: datetime | None
    last_nominal_time: datetime | None
    tzdata: str
    reckon_time: datetime | None
    running_firing_id: str | None
    queued_kind: str | None
    queued_nominal_time: datetime | None
    firing_count: int
    forgotten_nominal_time: datetime | None
    create_time: datetime
    update_time: datetime
    etag: str

    def has_forgotten(self, nominal_time: datetime) -> bool:
        """Whether it is not known any more if a time has fired."""
        return self.forgotten_nominal_time is not None and nominal_time <= self.forgotten_nominal_time

    def end_pause(self) -> None:
        """Have it not be paused."""
        self.paused_by, self.pause_note, self.pause_time = None, "", None

    @property
    def waits_for_time(self) -> bool:
        """Whether it fires when its time comes, if it has one."""
        return self.version_id is not None and self.enabled and self.pause_time is None


@dataclass(frozen=True, slots=True)
class ScheduleVersion:
    """A document that was saved under a schedule's alias, in any revision.

    `actor_id` is on whose behalf it fires: who saved it, or whom an admin has reassigned it to. `target_revision_id` is the
    revision that it pins; None where it follows the default.
    """

    id: str
    schedule_id: str
    digest: str
    document: str
    target_revision_id: str | None
    actor_id: str
    create_time: datetime
