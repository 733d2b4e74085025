"""SessionObjectService on the wire."""

from __future__ import annotations

from functools import partial

from blobhub.v1 import session_object_pb2 as pb

from blobhub_server.blobtypes import json_field
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.etag import ANY, require_etag
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import AlreadyExists, NotFound
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import repeated, to_timestamp
from blobhub_server.turnstile import off_loop
from blobhub_server.workflow.log.session_events import SessionEvents
from blobhub_server.workflow.rules import session_object as rules
from blobhub_server.workflow.rules.session import Session
from blobhub_server.workflow.rules.session_object import SessionObject
from blobhub_server.workflow.store import session_object as store

_INSTEAD = "ListSessionObjects lists those of the session"


def to_proto(item: SessionObject) -> pb.SessionObject:
    """An object as its message; its value is left unset where the record has none."""
    made = pb.SessionObject(
        session_id=item.session_id,
        alias=item.alias,
        type=item.type,
        size=item.size,
        create_time=to_timestamp(item.create_time),
        update_time=to_timestamp(item.update_time),
        etag=item.etag,
    )
    if item.value:
        json_field.fill_text(made, "value", item.value)
    return made


def _answer(item: SessionObject) -> bytes:
    """GetSessionObject's answer, encoded."""
    return repeated(1, [to_proto(item).SerializeToString()])


class SessionObjectService:
    """Reads and writes a session's objects."""

    def __init__(self, host: Host, events: SessionEvents) -> None:
        self._host = host
        self._events = events

    async def PutSessionObject(
        self, request: pb.PutSessionObjectRequest, call: Call[Session]
    ) -> pb.PutSessionObjectResponse:
        value, text = await off_loop(request.ByteSize(), call.caller.party, partial(json_field.read, request, "value"))

        async def make(tx: Transaction) -> pb.PutSessionObjectResponse:
            await self._events.require_open(tx, call.resource.id)
            current = await store.get(tx, call.resource.id, request.alias)
            if request.create_only and current is not None:
                raise AlreadyExists("session object", request.alias)
            if request.etag == ANY and current is None:
                raise NotFound("session object", request.alias, _INSTEAD)
            require_etag(request.etag, current.etag if current else "")
            now = self._host.clock()
            item = SessionObject(
                session_id=call.resource.id,
                alias=request.alias,
                type=rules.type_of(value),
                value=text,
                size=len(text.encode()),
                create_time=current.create_time if current else now,
                update_time=now,
                etag=self._host.ids(),
            )
            await store.put(tx, [item])
            await self._events.append_object_modified(tx, call.resource.id, item.alias, item.type)
            item.value = ""
            return pb.PutSessionObjectResponse(session_object=to_proto(item))

        return await call.once(make)

    async def GetSessionObject(self, request: pb.GetSessionObjectRequest, call: Call[Session]) -> bytes:
        async with self._host.db.read() as tx:
            item = await store.get(tx, call.resource.id, request.alias)
        if item is None:
            raise NotFound("session object", request.alias, _INSTEAD)
        return await off_loop(item.size, call.caller.party, partial(_answer, item))

    async def ListSessionObjects(
        self, request: pb.ListSessionObjectsRequest, call: Call[Session]
    ) -> pb.ListSessionObjectsResponse:
        order_by = request.order_by or "alias"
        page = Page.parse(request, call.resource.id, request.alias_prefix, order_by)
        async with self._host.db.scan(call.caller.party) as tx:
            found = await store.page(
                tx, call.resource.id, order_by=order_by, prefix=request.alias_prefix, after=page.after, limit=page.limit + 1
            )
        items, token = await page.fill(found, lambda item: item.alias, to_proto)
        return pb.ListSessionObjectsResponse(session_objects=items, next_page_token=token)

    async def DeleteSessionObject(
        self, request: pb.DeleteSessionObjectRequest, call: Call[Session]
    ) -> pb.DeleteSessionObjectResponse:
        async def make(tx: Transaction) -> pb.DeleteSessionObjectResponse:
            await self._events.require_open(tx, call.resource.id)
            current = await store.get(tx, call.resource.id, request.alias)
            if current is None:
                raise NotFound("session object", request.alias, _INSTEAD)
            require_etag(request.etag, current.etag)
            await store.delete(tx, call.resource.id, request.alias)
            await self._events.append_object_deleted(tx, call.resource.id, request.alias)
            return pb.DeleteSessionObjectResponse()

        return await call.once(make)
