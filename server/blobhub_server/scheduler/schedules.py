"""Saves schedules: their documents as content of a draft, and what is the same over all revisions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from blobhub_server.blobtypes.access import Role
from blobhub_server.blobtypes.capabilities import Invocable
from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.blobtypes.values import Entry
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import (
    AlreadyExists,
    BlobHubError,
    InvalidReference,
    NotFound,
    PermissionDenied,
    Violation,
)
from blobhub_server.ids import canonical_id
from blobhub_server.scheduler.arming import Arming
from blobhub_server.scheduler.errors import InvalidSchedule
from blobhub_server.scheduler.rules import limit
from blobhub_server.scheduler.rules.document import ScheduleDocument, Target
from blobhub_server.scheduler.rules.schedule import Schedule, ScheduleVersion
from blobhub_server.scheduler.store import schedule as store
from blobhub_server.scheduler.store import version as version_store

UNSETTLED = ("draft", "latest")
"""Versions that neither pin a revision nor follow the default."""
HIDDEN_TARGET = "you may not write to the target's blob, or there is no such blob"


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedSchedule:
    """A schedule as a revision holds it: what is the same over all, the entry of that revision, and its document."""

    revision: RevisionView
    entry: Entry
    schedule: Schedule
    version: ScheduleVersion

    @property
    def armed(self) -> bool:
        """Whether the default revision has the same document, so that it is this one that fires."""
        return self.schedule.version_id == self.version.id


class Schedules:
    """Saves and removes schedules in drafts."""

    def __init__(self, host: Host, invocable: Invocable, arming: Arming) -> None:
        self._host = host
        self._invocable = invocable
        self._arming = arming

    async def settled(self, tx: Transaction, document: ScheduleDocument) -> ScheduleDocument:
        """The document with its target settled for its actor. Raises as `settle_target` does."""
        target = await self.settle_target(tx, document.invocation_target, document.actor_id)
        return replace(document, invocation_target=target)

    async def settle_target(self, tx: Transaction, target: Target, actor_id: str) -> Target:
        """The target with what its reference leads to now, once the actor is found to be allowed to write there.

        Raises InvalidSchedule, PermissionDenied, Renamed, NotFound.
        """
        _, at, version = target.revision.partition("@")
        if version in UNSETTLED:
            message = f"must pin a revision or follow the default: @default, @<number>, or a revision's id, not @{version}"
            raise InvalidSchedule([Violation("spec.invocation_target.revision", message)])
        try:
            found = await self._host.revisions.resolve(tx, target.revision)
        except InvalidReference as error:
            (wrong,) = error.violations
            raise InvalidSchedule([Violation("spec.invocation_target.revision", wrong.message)]) from None
        role = Role.NONE if found is None else await self._host.actors.role(tx, actor_id, found.place)
        if found is None or role < Role.WRITE:
            raise PermissionDenied(HIDDEN_TARGET, role="write" if role else "")
        if isinstance(found.resource, BlobHubError):
            raise found.resource
        revision = found.resource
        if revision.blob_type != self._invocable.blob_type:
            message = f"is of a {revision.blob_type}, and what is invoked is a {self._invocable.blob_type}"
            raise InvalidSchedule([Violation("spec.invocation_target.revision", message)])
        follows = version == "default" if at else canonical_id(target.revision) != revision.id
        return replace(target, blob_id=revision.blob_id, revision_id="" if follows else revision.id)

    async def require_target(self, tx: Transaction, target: Target, actor_id: str) -> None:
        """Raise PermissionDenied unless an actor may write to the blob of a target that was settled before."""
        role = await self.role_on_target(tx, target, actor_id)
        if role < Role.WRITE:
            raise PermissionDenied(HIDDEN_TARGET, role="write" if role else "")

    async def role_on_target(self, tx: Transaction, target: Target, actor_id: str) -> Role:
        """The role of an actor on the blob of a target that was settled before; none where that is gone."""
        found = await self._host.revisions.resolve(tx, target.reference)
        return Role.NONE if found is None else await self._host.actors.role(tx, actor_id, found.place)

    async def find(self, tx: Transaction, revision: RevisionView, alias: str) -> SavedSchedule:
        """The schedule of a revision that has an alias. Raises NotFound."""
        found = await self.find_some(tx, revision, [alias])
        if alias not in found:
            raise NotFound("schedule", alias, "ListSchedules lists those of the revision")
        return found[alias]

    async def find_some(self, tx: Transaction, revision: RevisionView, aliases: Collection[str]) -> dict[str, SavedSchedule]:
        """Several schedules of a revision, by their aliases; those that there are."""
        # The etags before the content: an update in between makes an etag stale, and nobody writes over it.
        rows = await store.find_some(tx, revision.blob_id, aliases)
        entries = await self._host.contents.find_some(tx, revision.id, rows.keys())
        keys = {name: (rows[name].id, entry.digest) for name, entry in entries.items()}
        versions = await version_store.find_some(tx, keys.values())
        return {
            name: SavedSchedule(revision=revision, entry=entries[name], schedule=rows[name], version=versions[key])
            for name, key in keys.items()
            if key in versions  # Those of a deleted blob are collected, one after the other.
        }

    async def create(
        self,
        tx: Transaction,
        revision: RevisionView,
        alias: str,
        document: ScheduleDocument,
        stored: tuple[str, int],
        *,
        enabled: bool | None,
    ) -> tuple[SavedSchedule, str]:
        """Create a schedule in a draft; return it and the draft's new etag.

        Raises AlreadyExists, WrongPhase, LimitExceeded.
        """
        try:
            entry, etag = await self._host.contents.put(
                tx, revision.id, alias, stored, limit=limit.SCHEDULES, create_only=True
            )
        except AlreadyExists:
            raise AlreadyExists("schedule", alias) from None
        # The blob is locked by now, so nobody else makes a row of that alias.
        schedule = await store.find(tx, revision.blob_id, alias, lock=True)
        if schedule is None:
            schedule = self._new(revision, alias)
            await store.insert(tx, schedule)
        elif not await version_store.is_in_another(tx, schedule.id, revision.id):
            # It was deleted from all revisions, so nobody expects that it was switched off once.
            schedule.enabled = True
            schedule.end_pause()
        if enabled is not None and enabled != schedule.enabled:
            schedule.enabled = enabled
            await self._arming.go_on(tx, schedule)
        return await self._save(tx, revision, entry, schedule, document), etag

    async def put(
        self, tx: Transaction, saved: SavedSchedule, document: ScheduleDocument, stored: tuple[str, int]
    ) -> tuple[SavedSchedule, str]:
        """Replace the document of a schedule in a draft, which the caller has locked with `lock`."""
        entry, etag = await self._host.contents.put(tx, saved.revision.id, saved.entry.name, stored, limit=limit.SCHEDULES)
        return await self._save(tx, saved.revision, entry, saved.schedule, document), etag

    async def lock(self, tx: Transaction, saved: SavedSchedule) -> SavedSchedule:
        """Lock the blob of a schedule, then the schedule, and return it as its revision holds it now. Raises NotFound."""
        revision = saved.revision
        await self._host.limits.lock(tx, organization_id=revision.organization_id, blob_id=revision.blob_id)
        await store.get(tx, saved.schedule.id, lock=True)
        return await self.find(tx, revision, saved.entry.name)

    async def reassign(self, tx: Transaction, saved: SavedSchedule, actor_id: str) -> SavedSchedule:
        """Have a schedule, which the caller has locked, fire on another actor's behalf."""
        await version_store.reassign(tx, saved.version.id, actor_id)
        await self.touch(tx, saved.schedule)
        return replace(saved, version=replace(saved.version, actor_id=actor_id))

    async def delete(self, tx: Transaction, saved: SavedSchedule) -> str:
        """Remove a schedule, which the caller has locked, from its draft; return the draft's new etag. Raises WrongPhase."""
        etag = await self._host.contents.delete(tx, saved.revision.id, saved.entry.name)
        if await self._is_default(tx, saved.revision):
            await self._arming.arm(tx, saved.schedule, None)
        await self.touch(tx, saved.schedule)
        return etag

    async def touch(self, tx: Transaction, schedule: Schedule) -> None:
        """Store a schedule that a call has changed."""
        schedule.update_time, schedule.etag = self._host.clock(), self._host.ids()
        await store.update(tx, [schedule])

    async def _save(
        self, tx: Transaction, revision: RevisionView, entry: Entry, schedule: Schedule, document: ScheduleDocument
    ) -> SavedSchedule:
        await self._hold_pinned(tx, document.invocation_target)
        now, ids = self._host.clock(), self._host.ids
        version = await version_store.put(
            tx,
            ScheduleVersion(
                id=ids(),
                schedule_id=schedule.id,
                digest=entry.digest,
                document=document.write(),
                target_revision_id=document.invocation_target.revision_id or None,
                actor_id=document.actor_id,
                create_time=now,
            ),
        )
        schedule.saved_revision_id = revision.id
        if await self._is_default(tx, revision):
            await self._arming.arm(tx, schedule, version)
        await self.touch(tx, schedule)
        return SavedSchedule(revision=revision, entry=entry, schedule=schedule, version=version)

    async def _hold_pinned(self, tx: Transaction, target: Target) -> None:
        """Keep the revision that a target pins from being discarded until the transaction ends. Raises NotFound."""
        if not target.revision_id:
            return
        # Whoever discards a revision locks its blob, and then counts the schedules that pin it.
        there = await self._host.contents.pin(tx, target.blob_id)
        if not there or await self._host.revisions.resolve(tx, target.revision_id) is None:
            raise NotFound("revision", target.revision)

    async def _is_default(self, tx: Transaction, revision: RevisionView) -> bool:
        return await self._arming.default_revision_id(tx, revision.blob_id) == revision.id

    def _new(self, revision: RevisionView, alias: str) -> Schedule:
        now = self._host.clock()
        return Schedule(
            id=self._host.ids(),
            organization_id=revision.organization_id,
            blob_id=revision.blob_id,
            alias=alias,
            enabled=True,
            paused_by=None,
            pause_note="",
            pause_time=None,
            version_id=None,
            repeat=None,
            saved_revision_id=revision.id,
            next_nominal_time=None,
            next_due_time=None,
            last_nominal_time=None,
            tzdata="",
            reckon_time=None,
            running_firing_id=None,
            queued_kind=None,
            queued_nominal_time=None,
            firing_count=0,
            forgotten_nominal_time=None,
            create_time=now,
            update_time=now,
            etag=self._host.ids(),
        )
