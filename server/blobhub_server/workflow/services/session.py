"""SessionService on the wire."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC

from blobhub.v1 import session_pb2 as pb

from blobhub_server.blobtypes.access import Caller, Place, Resolution
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import BlobView, Host, RevisionView
from blobhub_server.blobtypes.reference import parse_within
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import InvalidPageToken, InvalidValue, NotFound
from blobhub_server.ids import NOTHING
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.watch import check_range, pack
from blobhub_server.rpc.wire import to_timestamp
from blobhub_server.workflow.errors import TYPE
from blobhub_server.workflow.log.listing import Part
from blobhub_server.workflow.log.log import EventLog
from blobhub_server.workflow.log.watching import watch_session
from blobhub_server.workflow.rules.session import Session
from blobhub_server.workflow.runtime.inbox import Inbox
from blobhub_server.workflow.sessions import Sessions
from blobhub_server.workflow.store import event as event_store
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import session as store

_STATES = {
    "open": pb.SESSION_STATE_OPEN,
    "closing": pb.SESSION_STATE_CLOSING,
    "closed": pb.SESSION_STATE_CLOSED,
}
_NEWEST_FIRST = "session_sequence desc"
_NAMES = {number: name for name, number in _STATES.items()}


def to_proto(session: Session) -> pb.Session:
    """A session as its message."""
    return pb.Session(
        id=session.id,
        blob_id=session.blob_id,
        revision_id=session.revision_id,
        alias=session.alias or "",
        description=session.description,
        state=_STATES[session.state],
        first_session_sequence=session.first_session_sequence,
        last_session_sequence=session.last_session_sequence,
        create_time=to_timestamp(session.create_time),
        update_time=to_timestamp(session.update_time),
    )


class SessionService:
    """Opens, finds, closes and watches sessions, and lists their events."""

    def __init__(self, host: Host, inbox: Inbox, log: EventLog) -> None:
        self._host = host
        self._inbox = inbox
        self._log = log
        self._sessions = Sessions(host)

    async def CreateSession(self, request: pb.CreateSessionRequest, call: Call[RevisionView]) -> pb.CreateSessionResponse:
        revision = call.resource.require_type(TYPE)

        async def make(tx: Transaction) -> pb.CreateSessionResponse:
            session = await self._sessions.create(
                tx, revision, reference=request.revision, alias=request.alias, description=request.description
            )
            return pb.CreateSessionResponse(session=to_proto(session))

        return await call.once(make)

    async def GetSession(self, request: pb.GetSessionRequest, call: Call[Session]) -> pb.GetSessionResponse:
        return pb.GetSessionResponse(session=to_proto(call.resource))

    async def ListSessions(self, request: pb.ListSessionsRequest, call: Call[BlobView]) -> pb.ListSessionsResponse:
        blob, order_by = call.resource, request.order_by or "create_time"
        async with self._host.db.scan(call.caller.party) as tx:
            revision_id = await self._revision_id(tx, blob, request) if request.revision else ""
            page = Page.parse(request, blob.id, revision_id, request.alias, str(request.state), order_by)
            found = await store.page(
                tx,
                blob.id,
                order_by=order_by,
                revision_id=revision_id,
                alias=request.alias,
                state=_NAMES.get(request.state),
                after=page.after,
                limit=page.limit + 1,
            )
        items, token = await page.fill(found, lambda session: session.id, to_proto)
        return pb.ListSessionsResponse(sessions=items, next_page_token=token)

    async def _revision_id(self, tx: Transaction, blob: BlobView, request: pb.ListSessionsRequest) -> str:
        """The id of the blob's revision that is asked about. Raises NotFound, for those of other blobs too."""
        reference = request.revision
        found = await self._host.revisions.resolve(tx, reference)
        view = found.resource if found else None
        if not isinstance(view, RevisionView) or view.blob_id != blob.id:
            raise NotFound("revision", reference, f"ListRevisions lists the revisions of {request.blob}")
        return view.id

    async def CloseSession(self, request: pb.CloseSessionRequest, call: Call[Session]) -> pb.CloseSessionResponse:
        async def make(tx: Transaction) -> pb.CloseSessionResponse:
            return pb.CloseSessionResponse(session=to_proto(await self._inbox.close(tx, call.resource.id)))

        return await call.once(make)

    async def WatchSession(self, request: pb.WatchSessionRequest, call: Call[Session]) -> AsyncIterator[bytes]:
        session = call.resource
        check_range(request.after_session_sequence, session.last_session_sequence)
        if session.state == "closed" and request.after_session_sequence == session.last_session_sequence:
            return
        watch = watch_session(self._log, session.id, call.caller.party, self._host.settings.progress_seconds)
        async for batch in watch.stream(
            call, self._host.bell, self._host.drain, request.after_session_sequence, replay_only=request.replay_only
        ):
            yield pack(batch, self._host.clock())

    async def ListEvents(self, request: pb.ListEventsRequest, call: Call[Session]) -> bytes:
        session, descending = call.resource, request.order_by == _NEWEST_FIRST
        check_range(request.after_session_sequence, session.last_session_sequence)
        types = list(request.types)
        after = f"{request.after_session_sequence} {request.after_time.seconds}.{request.after_time.nanos}"
        page = Page.parse(request, session.id, request.execution, after, str(descending), *types)
        async with self._host.db.scan(call.caller.party) as tx:
            part = await _find_part(tx, session, request)
            if page.after:
                part = part.follow(_number(page.after), descending=descending)
            found = await part.read(tx, types=types, descending=descending, limit=page.limit + 1)
        lines, token = await page.fill(
            found, lambda line: str(part.number(line)), lambda line: line, size_of=lambda line: len(line.event)
        )
        # Two encoded messages of a type, one after the other, are one, and the events are encoded already.
        return pack(lines, self._host.clock()) + pb.ListEventsResponse(next_page_token=token).SerializeToString()


async def _find_part(tx: Transaction, session: Session, request: pb.ListEventsRequest) -> Part:
    """The part of the log that a request is about. Raises NotFound, InvalidValue."""
    last = session.last_session_sequence
    if request.execution:
        execution = await execution_store.get(tx, request.execution.lower())
        if execution is None or execution.session_id != session.id:
            raise NotFound("execution", request.execution, "ListExecutions lists those of the session")
        last = execution.last_execution_sequence
    part = Part(session_id=session.id, execution_id=request.execution.lower(), after=0, last=last)
    if not request.HasField("after_time"):
        return await part.begin(tx, request.after_session_sequence)
    try:
        time = request.after_time.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise InvalidValue("after_time", "is not a time between the years 1 and 9999") from None
    return await part.begin(tx, await event_store.session_sequence_at(tx, session.id, time))


def _number(after: str) -> int:
    if re.fullmatch("[0-9]{1,18}", after) is None:
        raise InvalidPageToken
    return int(after)


async def locate_session(host: Host, value: str, caller: Caller) -> Resolution[Session] | None:
    """The locator of sessions: by id, or by alias in a revision."""
    reference = parse_within(value)
    if reference.id:
        async with host.db.read() as tx:
            session = await store.get(tx, reference.id)
        return None if session is None else _resolution(session)
    found = await host.revisions.locate(reference.revision, caller)
    revision = found.resource if found and isinstance(found.resource, RevisionView) else None
    async with host.db.read() as tx:
        session = await store.find(tx, revision.id if revision else NOTHING, reference.alias)
    if session is not None:
        return _resolution(session)
    if found is None:
        return None
    absent = NotFound("session", value) if isinstance(found.resource, RevisionView) else found.resource
    return Resolution(place=replace(found.place, public=False), resource=absent, never_public=True)


def _resolution(session: Session) -> Resolution[Session]:
    place = Place(organization_id=session.organization_id, blob_id=session.blob_id)
    return Resolution(place=place, resource=session, never_public=True)
