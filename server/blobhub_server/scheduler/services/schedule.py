"""ScheduleService on the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from blobhub.v1 import schedule_pb2 as pb
from google.protobuf.field_mask_pb2 import FieldMask

from blobhub_server.blobtypes.access import Role
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.blobtypes.etag import require_etag
from blobhub_server.db.engine import Transaction
from blobhub_server.db.portion import MAX_PAGE_BYTES
from blobhub_server.errors import InvalidValue
from blobhub_server.rpc.masks import changed_fields
from blobhub_server.rpc.paging import Page
from blobhub_server.scheduler.arming import Arming
from blobhub_server.scheduler.errors import TYPE
from blobhub_server.scheduler.rules import spec as rules
from blobhub_server.scheduler.rules.document import ScheduleDocument
from blobhub_server.scheduler.rules.schedule import Schedule
from blobhub_server.scheduler.rules.state import require_open, state_of
from blobhub_server.scheduler.rules.timing import Timing
from blobhub_server.scheduler.schedules import SavedSchedule, Schedules
from blobhub_server.scheduler.services.locating import LocatedSchedule
from blobhub_server.scheduler.services.message import to_proto
from blobhub_server.scheduler.services.preview import SchedulePreviews
from blobhub_server.scheduler.services.spec import FIELDS, to_document
from blobhub_server.scheduler.store import schedule as store

PART = 50
"""How many schedules are read in one go: each may have as many bytes as a schedule may have."""


class ScheduleService(SchedulePreviews):
    """Stores schedules, shows them, and says when they fire."""

    def __init__(self, host: Host, schedules: Schedules, arming: Arming) -> None:
        super().__init__(host, schedules)
        self._arming = arming

    async def CreateSchedule(self, request: pb.CreateScheduleRequest, call: Call[RevisionView]) -> pb.CreateScheduleResponse:
        revision = call.resource.require_type(TYPE)
        document = to_document(request.spec, call.caller.actor_id)
        rules.require_valid(document, self._host.clock())
        async with self._host.db.read() as tx:
            document = await self._schedules.settled(tx, document)
        stored = await self._host.contents.upload(document.write().encode())
        enabled = request.enabled if request.HasField("enabled") else None

        async def make(tx: Transaction) -> pb.CreateScheduleResponse:
            saved, etag = await self._schedules.create(tx, revision, request.alias, document, stored, enabled=enabled)
            return pb.CreateScheduleResponse(schedule=self._shown(saved), revision_etag=etag)

        return await call.once(make)

    async def GetSchedule(self, request: pb.GetScheduleRequest, call: Call[LocatedSchedule]) -> pb.GetScheduleResponse:
        async with self._host.db.read() as tx:
            return pb.GetScheduleResponse(schedule=self._shown(await self._find(tx, call)))

    async def ListSchedules(self, request: pb.ListSchedulesRequest, call: Call[RevisionView]) -> pb.ListSchedulesResponse:
        revision = call.resource.require_type(TYPE)
        enabled = str(request.enabled) if request.HasField("enabled") else ""
        filters = (str(request.state), str(request.repeat), enabled, request.order_by or "alias")
        page = Page.parse(request, revision.id, request.alias_prefix, *filters)
        found: list[pb.Schedule] = []
        after, more, size = page.after, "", 0
        async with self._host.db.scan(call.caller.party) as tx:
            while len(found) <= page.limit:
                aliases = await self._aliases(tx, revision, request, after)
                saved = await self._schedules.find_some(tx, revision, aliases)
                part = [self._shown(saved[alias]) for alias in aliases if alias in saved]
                found += [item for item in part if _is_asked_for(request, item)]
                if len(aliases) < PART:
                    more = ""
                    break
                more = after = aliases[-1]
                size += sum(item.ByteSize() for item in part)
                if size >= MAX_PAGE_BYTES:
                    break
        items, token = await page.fill(found, lambda item: item.alias, lambda item: item, more=more)
        return pb.ListSchedulesResponse(schedules=items, next_page_token=token)

    async def _aliases(
        self, tx: Transaction, revision: RevisionView, request: pb.ListSchedulesRequest, after: str
    ) -> list[str]:
        """The aliases of some of a revision's schedules in the order asked for, whatever the other filters are."""
        entries = await self._host.contents.list(
            tx,
            revision.id,
            after=after,
            limit=PART,
            prefix=request.alias_prefix,
            descending=request.order_by == "alias desc",
        )
        return [entry.name for entry in entries]

    async def UpdateSchedule(
        self, request: pb.UpdateScheduleRequest, call: Call[LocatedSchedule]
    ) -> pb.UpdateScheduleResponse:
        sent = to_document(request.spec, call.caller.actor_id)
        names = changed_fields(_MaskedSpec(request.update_mask, request.spec), *FIELDS)
        async with self._host.db.read() as tx:
            base = await self._find(tx, call)
            require_etag(request.etag, base.schedule.etag)
            document = await self._updated(tx, base, sent, names)
        stored = await self._host.contents.upload(document.write().encode())

        async def make(tx: Transaction) -> pb.UpdateScheduleResponse:
            saved = await self._schedules.lock(tx, base)
            require_etag(request.etag, saved.schedule.etag)
            made, put = document, stored
            if saved.version.digest != base.version.digest:
                # Another update came between. It is made anew, and uploaded here: it is small, and this happens seldom.
                made = await self._updated(tx, saved, sent, names)
                put = await self._host.contents.upload(made.write().encode())
            saved, etag = await self._schedules.put(tx, saved, made, put)
            return pb.UpdateScheduleResponse(schedule=self._shown(saved), revision_etag=etag)

        return await call.once(make)

    async def _updated(
        self, tx: Transaction, base: SavedSchedule, sent: ScheduleDocument, names: set[str]
    ) -> ScheduleDocument:
        """A stored schedule with what was sent. Raises ScheduleCompleted, InvalidSchedule, PermissionDenied."""
        stored, now = ScheduleDocument.read(base.version.document), self._host.clock()
        require_open(state_of(base.schedule, Timing.read(stored), now, armed=base.armed))
        document = rules.changed(stored, sent, names).changed(sent, {"actor_id"})
        rules.require_valid(document, now)
        if "invocation_target" in names:
            return await self._schedules.settled(tx, document)
        await self._schedules.require_target(tx, document.invocation_target, document.actor_id)
        return document

    async def DeleteSchedule(
        self, request: pb.DeleteScheduleRequest, call: Call[LocatedSchedule]
    ) -> pb.DeleteScheduleResponse:
        async def make(tx: Transaction) -> pb.DeleteScheduleResponse:
            saved = await self._schedules.lock(tx, await self._find(tx, call))
            require_etag(request.etag, saved.schedule.etag)
            return pb.DeleteScheduleResponse(revision_etag=await self._schedules.delete(tx, saved))

        return await call.once(make)

    async def EnableSchedule(
        self, request: pb.EnableScheduleRequest, call: Call[LocatedSchedule]
    ) -> pb.EnableScheduleResponse:
        async def make(tx: Transaction) -> pb.EnableScheduleResponse:
            return pb.EnableScheduleResponse(schedule=await self._switched(tx, call, partial(_enable, enabled=True)))

        return await call.once(make)

    async def DisableSchedule(
        self, request: pb.DisableScheduleRequest, call: Call[LocatedSchedule]
    ) -> pb.DisableScheduleResponse:
        async def make(tx: Transaction) -> pb.DisableScheduleResponse:
            return pb.DisableScheduleResponse(schedule=await self._switched(tx, call, partial(_enable, enabled=False)))

        return await call.once(make)

    async def PauseSchedule(self, request: pb.PauseScheduleRequest, call: Call[LocatedSchedule]) -> pb.PauseScheduleResponse:
        def pause(schedule: Schedule) -> bool:
            schedule.paused_by, schedule.pause_note = call.caller.actor_id, request.note
            schedule.pause_time = self._host.clock()
            return True

        async def make(tx: Transaction) -> pb.PauseScheduleResponse:
            return pb.PauseScheduleResponse(schedule=await self._switched(tx, call, pause))

        return await call.once(make)

    async def ResumeSchedule(
        self, request: pb.ResumeScheduleRequest, call: Call[LocatedSchedule]
    ) -> pb.ResumeScheduleResponse:
        async def make(tx: Transaction) -> pb.ResumeScheduleResponse:
            return pb.ResumeScheduleResponse(schedule=await self._switched(tx, call, _resume))

        return await call.once(make)

    async def ReassignSchedule(
        self, request: pb.ReassignScheduleRequest, call: Call[LocatedSchedule]
    ) -> pb.ReassignScheduleResponse:
        field = request.WhichOneof("actor") or ""
        actor_id = getattr(request, field).lower()

        async def make(tx: Transaction) -> pb.ReassignScheduleResponse:
            saved = await self._schedules.lock(tx, await self._find(tx, call))
            target = ScheduleDocument.read(saved.version.document).invocation_target
            # Else an admin of the scheduler alone would have others act where they themselves may not.
            await self._schedules.require_target(tx, target, call.caller.actor_id)
            if await self._schedules.role_on_target(tx, target, actor_id) < Role.WRITE:
                raise InvalidValue(field, "may not write to the target's blob, or does not exist")
            saved = await self._schedules.reassign(tx, saved, actor_id)
            return pb.ReassignScheduleResponse(schedule=self._shown(saved))

        return await call.once(make)

    async def _switched(
        self, tx: Transaction, call: Call[LocatedSchedule], switch: Callable[[Schedule], bool]
    ) -> pb.Schedule:
        """Change what is not content of a schedule, and reckon its next time anew, if `switch` says that it changed."""
        await store.find(tx, call.resource.revision.blob_id, call.resource.entry.name, lock=True)
        saved = await self._find(tx, call)
        if switch(saved.schedule):
            await self._arming.go_on(tx, saved.schedule)
            await self._schedules.touch(tx, saved.schedule)
        return self._shown(saved)

    def _shown(self, saved: SavedSchedule) -> pb.Schedule:
        return to_proto(saved, self._host.clock())

    async def _find(self, tx: Transaction, call: Call[LocatedSchedule]) -> SavedSchedule:
        """The schedule that a call is about, as its revision holds it now. Raises NotFound."""
        return await self._schedules.find(tx, call.resource.revision, call.resource.entry.name)


def _enable(schedule: Schedule, *, enabled: bool) -> bool:
    """Enable or disable a schedule; whether that changes anything."""
    changes = schedule.enabled is not enabled
    schedule.enabled = enabled
    return changes


def _resume(schedule: Schedule) -> bool:
    """End a schedule's pause; whether there was one."""
    was_paused = schedule.pause_time is not None
    schedule.end_pause()
    return was_paused


def _is_asked_for(request: pb.ListSchedulesRequest, schedule: pb.Schedule) -> bool:
    """Whether a schedule passes the filters of a list."""
    return (
        request.state in (pb.SCHEDULE_STATE_UNSPECIFIED, schedule.state)
        and request.repeat in (pb.SCHEDULE_REPEAT_UNSPECIFIED, schedule.spec.repeat)
        and (not request.HasField("enabled") or request.enabled == schedule.enabled)
    )


@dataclass(frozen=True, slots=True)
class _MaskedSpec:
    """The spec of an update with its mask, which names fields of the spec."""

    update_mask: FieldMask
    spec: pb.ScheduleSpec

    def ListFields(self) -> Sequence[tuple[Any, Any]]:
        """The fields that are set, and their values."""
        return self.spec.ListFields()
