"""The part of ScheduleService that says when schedules will fire."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from blobhub.v1 import schedule_pb2 as pb

from blobhub_server.background import Turns
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import BlobView, Host, RevisionView
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import InvalidPageToken, InvalidValue, WrongBlobType
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import to_timestamp
from blobhub_server.scheduler import timetable
from blobhub_server.scheduler.errors import TYPE
from blobhub_server.scheduler.rules.document import ScheduleDocument
from blobhub_server.scheduler.rules.schedule import Schedule
from blobhub_server.scheduler.rules.timing import Timing
from blobhub_server.scheduler.schedules import Schedules
from blobhub_server.scheduler.services.spec import to_document
from blobhub_server.scheduler.store import schedule as store
from blobhub_server.scheduler.store import version as version_store
from blobhub_server.scheduler.timetable import InvalidCron, Occurrence

DEFAULT_COUNT = 10
PART = 200
"""How many schedules are read in one go."""
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def to_occurrence(occurrence: Occurrence) -> pb.Occurrence:
    """A time as its message."""
    return pb.Occurrence(
        nominal_time=to_timestamp(occurrence.instant),
        local_time=local_text(occurrence),
        utc_offset=offset_text(occurrence.utc_offset),
        offset_changes=occurrence.offset_changes,
    )


def local_text(occurrence: Occurrence) -> str:
    """The local time with its offset, such as `2027-03-28T03:00:00+02:00`."""
    return f"{occurrence.local_time.isoformat()}{offset_text(occurrence.utc_offset)}"


def offset_text(offset: timedelta) -> str:
    """An offset from UTC, such as `+02:00`; with seconds where it has some, as zones had long ago."""
    sign, rest = ("-", -offset) if offset < timedelta() else ("+", offset)
    minutes, seconds = divmod(int(rest.total_seconds()), 60)
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}" + (f":{seconds:02}" if seconds else "")


@dataclass(frozen=True, slots=True, order=True)
class Upcoming:
    """A time of a schedule, in the order of the list."""

    time: datetime
    schedule_id: str

    @classmethod
    def from_token(cls, after: str) -> Upcoming:
        """The one that a page begins after. Raises InvalidPageToken."""
        if not after:
            return cls(time=_BEGINNING, schedule_id="")
        time, _, schedule_id = after.partition(" ")
        try:
            return cls(time=datetime.fromisoformat(time), schedule_id=schedule_id)
        except ValueError:
            raise InvalidPageToken from None

    @property
    def token(self) -> str:
        """The key of the next page."""
        return f"{self.time.isoformat()} {self.schedule_id}"


class SchedulePreviews:
    """Says when schedules, stored ones and others, will fire."""

    def __init__(self, host: Host, schedules: Schedules) -> None:
        self._host = host
        self._schedules = schedules

    async def PreviewSchedule(
        self, request: pb.PreviewScheduleRequest, call: Call[RevisionView]
    ) -> pb.PreviewScheduleResponse:
        revision = call.resource.require_type(TYPE)
        if request.WhichOneof("subject") == "schedule":
            document = await self._stored(revision, request.schedule)
        else:
            document = to_document(request.spec, call.caller.actor_id)
        timing = Timing.read(document)
        after = _after(request) or self._host.clock()
        answer = pb.PreviewScheduleResponse(description=timing.describe(), tzdata_version=timetable.TZDATA_VERSION)
        turns = Turns()
        for _ in range(request.count or DEFAULT_COUNT):
            due = timing.next_after(after)
            if due is None:
                break
            answer.occurrences.append(to_occurrence(timing.occurrence(due)))
            after = due
            await turns.pause()
        return answer

    async def _stored(self, revision: RevisionView, name_or_id: str) -> ScheduleDocument:
        """The document of a schedule of a revision, by alias or id. Raises NotFound."""
        async with self._host.db.read() as tx:
            schedule = await store.get(tx, name_or_id.lower())
            alias = schedule.alias if schedule is not None and schedule.blob_id == revision.blob_id else name_or_id
            return ScheduleDocument.read((await self._schedules.find(tx, revision, alias)).version.document)

    async def DescribeCron(self, request: pb.DescribeCronRequest, call: Call[None]) -> pb.DescribeCronResponse:
        try:
            cron = timetable.parse_cron(request.cron_expression)
        except InvalidCron as error:
            raise InvalidValue("cron_expression", error.message) from None
        return pb.DescribeCronResponse(description=timetable.describe(cron))

    async def ListUpcomingFirings(
        self, request: pb.ListUpcomingFiringsRequest, call: Call[BlobView]
    ) -> pb.ListUpcomingFiringsResponse:
        blob = call.resource
        if blob.type != TYPE:
            raise WrongBlobType(blob.type, TYPE)
        before = request.before.ToDatetime(UTC) if request.HasField("before") else None
        page = Page.parse(request, blob.id, before.isoformat() if before else "")
        found: list[tuple[Upcoming, Schedule, Timing]] = []
        async with self._host.db.scan(call.caller.party) as tx:
            async for item in self._upcoming(tx, blob.id, Upcoming.from_token(page.after)):
                if before is not None and item[0].time >= before:
                    break
                found.append(item)
                if len(found) > page.limit:
                    break
        items, token = await page.fill(found, lambda item: item[0].token, _to_upcoming)
        return pb.ListUpcomingFiringsResponse(firings=items, next_page_token=token)

    async def _upcoming(
        self, tx: Transaction, blob_id: str, after: Upcoming
    ) -> AsyncIterator[tuple[Upcoming, Schedule, Timing]]:
        """The times of a blob's schedules after one of them, in order.

        Schedules are read in the order of their next times, as far as these are needed.
        """
        waiting: list[tuple[Upcoming, Schedule, Timing]] = []
        turns = Turns()
        read, more = Upcoming(time=_BEGINNING, schedule_id=""), True
        while more or waiting:
            while more and (not waiting or read <= waiting[0][0]):
                part = await store.upcoming(tx, blob_id, (read.time, read.schedule_id), PART)
                versions = await version_store.get_some(tx, {each.version_id for each in part if each.version_id})
                for schedule in part:
                    assert schedule.next_nominal_time is not None, "it is ordered by it"
                    read = Upcoming(time=schedule.next_nominal_time, schedule_id=schedule.id)
                    timing = Timing.read(ScheduleDocument.read(versions[schedule.version_id or ""].document))
                    first = read if read > after else _next(timing, schedule, after)
                    if first is not None:
                        heapq.heappush(waiting, (first, schedule, timing))
                    await turns.pause()
                more = len(part) == PART
            if not waiting:
                return
            item = heapq.heappop(waiting)
            yield item
            following = _next(item[2], item[1], item[0])
            if following is not None:
                heapq.heappush(waiting, (following, item[1], item[2]))
            await turns.pause()


def _next(timing: Timing, schedule: Schedule, after: Upcoming) -> Upcoming | None:
    """The first time of a schedule that is after a time in the list."""
    # At the very instant, those with greater ids are still to come.
    earliest = after.time - timedelta(microseconds=1) if schedule.id > after.schedule_id else after.time
    due = timing.next_after(earliest)
    return None if due is None else Upcoming(time=due, schedule_id=schedule.id)


def _to_upcoming(item: tuple[Upcoming, Schedule, Timing]) -> pb.UpcomingFiring:
    upcoming, schedule, timing = item
    return pb.UpcomingFiring(
        schedule_id=schedule.id,
        schedule_alias=schedule.alias,
        nominal_time=to_timestamp(upcoming.time),
        local_time=local_text(timing.occurrence(upcoming.time)),
    )


def _after(request: pb.PreviewScheduleRequest) -> datetime | None:
    """The instant that a preview begins after, if one is given. Raises InvalidValue."""
    if not request.HasField("after"):
        return None
    try:
        return request.after.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise InvalidValue("after", "is not a time between the years 1 and 9999") from None
