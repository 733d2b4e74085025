"""FiringService on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC

from blobhub.v1 import execution_pb2, schedule_pb2
from blobhub.v1 import firing_pb2 as pb
from blobhub.v1.watch_pb2 import Progress

from blobhub_server.background import in_turns
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import BlobView, Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import InvalidValue, NotFound, WrongBlobType
from blobhub_server.ids import canonical_id
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.watch import MAX_BATCH, Watch, check_range, pack
from blobhub_server.rpc.wire import to_timestamp
from blobhub_server.scheduler.engine import tails
from blobhub_server.scheduler.engine.backfill import MAX_RANGE, Range, Step
from blobhub_server.scheduler.engine.engine import Engine
from blobhub_server.scheduler.engine.tails import topic
from blobhub_server.scheduler.errors import TYPE, ScheduleNotArmed
from blobhub_server.scheduler.rules.document import ScheduleDocument
from blobhub_server.scheduler.rules.firing import Firing, FiringKind, FiringStatus
from blobhub_server.scheduler.rules.state import require_known
from blobhub_server.scheduler.rules.timing import Timing
from blobhub_server.scheduler.schedules import Schedules
from blobhub_server.scheduler.services.locating import LocatedSchedule
from blobhub_server.scheduler.store import firing_log as log_store
from blobhub_server.scheduler.store import schedule as schedule_store
from blobhub_server.turnstile import Party

_KINDS = {kind: pb.FiringKind.Value(f"FIRING_KIND_{kind.name}") for kind in FiringKind}
_STATUSES = {status: pb.FiringStatus.Value(f"FIRING_STATUS_{status.name}") for status in FiringStatus}

_STATUS_OF = {number: status for status, number in _STATUSES.items()}


def to_proto(firing: Firing) -> pb.Firing:
    """A firing as its message."""
    return pb.Firing(
        id=firing.id,
        schedule_id=firing.schedule_id,
        schedule_alias=firing.schedule_alias,
        blob_id=firing.blob_id,
        kind=_KINDS[firing.kind],
        nominal_time=to_timestamp(firing.nominal_time),
        due_time=to_timestamp(firing.due_time),
        fire_time=to_timestamp(firing.fire_time),
        tzdata_version=firing.tzdata,
        schedule_digest=firing.schedule_digest,
        actor_id=firing.actor_id,
        invocation_target=schedule_pb2.InvocationTarget(
            revision=firing.revision, session=firing.session, definition=firing.definition
        ),
        status=_STATUSES[firing.status],
        reason=firing.reason,
        message=firing.message,
        execution_id=firing.execution_id or "",
        session_id=firing.session_id or "",
        execution_state=_execution_state(firing.execution_state),
        end_time=None if firing.end_time is None else to_timestamp(firing.end_time),
        sequence=firing.sequence,
    )


def _execution_state(state: str | None) -> execution_pb2.ExecutionState.ValueType:
    if state is None:
        return execution_pb2.EXECUTION_STATE_UNSPECIFIED
    return execution_pb2.ExecutionState.Value(f"EXECUTION_STATE_{state.upper()}")


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a log of firings: its number, and the message that watchers get, encoded."""

    number: int
    event: bytes
    type: str = "firing"


def _line(firing: Firing) -> _Line:
    return _Line(number=firing.sequence, event=to_proto(firing).SerializeToString())


def _recent_line(line: tails.Line) -> _Line:
    if line.event is None:
        line.event = to_proto(line.firing).SerializeToString()
    return _Line(number=line.firing.sequence, event=line.event)


class FiringService:
    """Answers what schedules have done, and fires them out of turn."""

    def __init__(self, host: Host, schedules: Schedules, engine: Engine) -> None:
        self._host = host
        self._schedules = schedules
        self._engine = engine

    async def GetFiring(self, request: pb.GetFiringRequest, call: Call[Firing]) -> pb.GetFiringResponse:
        return pb.GetFiringResponse(firing=to_proto(call.resource))

    async def ListFirings(self, request: pb.ListFiringsRequest, call: Call[BlobView]) -> pb.ListFiringsResponse:
        blob, order_by = _require_scheduler(call.resource), request.order_by or "create_time desc"
        schedule_id = await self._schedule_id(blob.id, request.schedule)
        status = _STATUS_OF.get(request.status)
        page = Page.parse(request, blob.id, schedule_id, status or "", order_by)
        async with self._host.db.scan(call.caller.party) as tx:
            found = await log_store.page(
                tx,
                blob.id,
                schedule_id=schedule_id,
                status=status,
                order_by=order_by,
                after=page.after,
                limit=page.limit + 1,
            )
        items, token = await page.fill(found, lambda firing: str(firing.sequence), to_proto)
        return pb.ListFiringsResponse(firings=items, next_page_token=token)

    async def WatchFirings(self, request: pb.WatchFiringsRequest, call: Call[BlobView]) -> AsyncIterator[bytes]:
        blob = _require_scheduler(call.resource)
        schedule_id = await self._schedule_id(blob.id, request.schedule)
        async with self._host.db.read() as tx:
            numbers = await log_store.numbers(tx, blob.id)
        after = request.after_sequence or numbers.first_sequence - 1
        check_range(after, numbers.last_sequence, first=numbers.first_sequence)
        watch = Watch(
            topic=topic(blob.id),
            read=lambda after: self._read(call.caller.party, blob.id, schedule_id, after),
            number=lambda line: line.number,
            progress_seconds=self._host.settings.progress_seconds,
        )
        async for batch in watch.stream(call, self._host.bell, self._host.drain, after, replay_only=request.replay_only):
            yield pack(batch, self._host.clock())

    async def TriggerSchedule(
        self, request: pb.TriggerScheduleRequest, call: Call[LocatedSchedule]
    ) -> pb.TriggerScheduleResponse:
        async def make(tx: Transaction) -> pb.TriggerScheduleResponse:
            saved = await self._schedules.find(tx, call.resource.revision, call.resource.entry.name)
            firing = await self._engine.trigger(tx, saved.schedule.id, saved.version.id)
            return pb.TriggerScheduleResponse(firing=to_proto(firing))

        return await call.once(make)

    async def BackfillSchedule(
        self, request: pb.BackfillScheduleRequest, call: Call[LocatedSchedule]
    ) -> AsyncIterator[pb.BackfillScheduleResponse]:
        start, end = request.start_time.ToDatetime(UTC), request.end_time.ToDatetime(UTC)
        if not start <= end <= start + MAX_RANGE:
            raise InvalidValue("end_time", f"must be start_time, or up to {MAX_RANGE.days} days later")
        async with self._host.db.read() as tx:
            saved = await self._schedules.find(tx, call.resource.revision, call.resource.entry.name)
        if not saved.armed:
            raise ScheduleNotArmed
        timing = Timing.read(ScheduleDocument.read(saved.version.document))
        require_known(saved.schedule, timing, start)

        async def note(_: Transaction) -> pb.BackfillScheduleResponse:
            """Nothing to do: it is in the audit log by now, and what it does is done in transactions of its own."""
            return pb.BackfillScheduleResponse()

        await call.first_answer(lambda: call.once(note), pb.BackfillScheduleResponse.FromString)
        wanted = Range(
            blob_id=saved.schedule.blob_id,
            schedule_id=saved.schedule.id,
            version_id=saved.version.id,
            timing=timing,
            start=start,
            end=min(end, self._host.clock()),
        )
        call.last_sequence = 0
        async for step in self._engine.backfill(wanted):
            call.last_sequence = max([call.last_sequence, *(firing.sequence for firing in step.firings)])
            yield self._step(step, call.last_sequence)

    def _step(self, step: Step, sequence: int) -> pb.BackfillScheduleResponse:
        made = pb.BackfillScheduleResponse(firings=map(to_proto, step.firings))
        if step.next_time is not None:
            made.next_start_time.CopyFrom(to_timestamp(step.next_time))
            if not step.firings:
                made.progress.MergeFrom(Progress(sequence=sequence, time=to_timestamp(self._host.clock())))
        return made

    async def _read(self, party: Party, blob_id: str, schedule_id: str, after: int) -> list[_Line]:
        recent = self._engine.tails.read(blob_id, schedule_id, after, MAX_BATCH)
        if recent:
            return await in_turns(_recent_line, recent)
        async with self._host.db.scan(party, patient=True) as tx:
            last = (await log_store.numbers(tx, blob_id)).last_sequence
            found = await log_store.lines(tx, blob_id, schedule_id, after=after, last=last, limit=MAX_BATCH)
            # Lines may be removed while the log is read. So it is looked afterwards whether any of these has been.
            first = (await log_store.numbers(tx, blob_id)).first_sequence
        check_range(after, last, first=first)
        return await in_turns(_line, found)

    async def _schedule_id(self, blob_id: str, reference: str) -> str:
        """The id of the schedule of a blob that a filter names; empty where it names none. Raises NotFound."""
        if not reference:
            return ""
        schedule_id = canonical_id(reference)
        async with self._host.db.read() as tx:
            if schedule_id:
                found = await schedule_store.get(tx, schedule_id)
            else:
                found = await schedule_store.find(tx, blob_id, reference)
        if found is None or found.blob_id != blob_id:
            raise NotFound("schedule", reference, "ListSchedules lists those of a revision")
        return found.id


def _require_scheduler(blob: BlobView) -> BlobView:
    """The blob itself, once its type is checked. Raises WrongBlobType."""
    if blob.type != TYPE:
        raise WrongBlobType(blob.type, TYPE)
    return blob
