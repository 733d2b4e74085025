"""AuditService on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from blobhub.v1 import audit_pb2 as pb

from blobhub_server.blobtypes.access import Caller
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import NotFound
from blobhub_server.platform.admission.locators import user_of
from blobhub_server.platform.calls import audit
from blobhub_server.platform.rules import reference as grammar
from blobhub_server.platform.rules.audit import AuditEntry
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.rules.user import User
from blobhub_server.platform.store import audit as store
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.watch import MAX_BATCH, Watch, check_range, pack
from blobhub_server.rpc.wire import to_timestamp


def to_proto(entry: AuditEntry) -> pb.AuditEntry:
    """An entry as its message."""
    return pb.AuditEntry(
        sequence=entry.sequence,
        id=entry.id,
        create_time=to_timestamp(entry.create_time),
        method=entry.method,
        user_id=entry.user_id or "",
        api_key_id=entry.api_key_id or "",
        organization_id=entry.organization_id or "",
        blob_id=entry.blob_id or "",
        resource_type=entry.resource_type,
        resource=entry.resource,
        code=entry.code,
        reason=entry.reason,
        domain=entry.domain,
        request_id=entry.request_id,
        detail=entry.detail,
    )


@dataclass(frozen=True, slots=True)
class EntryLine:
    """An entry as a line of a watch."""

    sequence: int
    event: bytes
    type: str = ""


class AuditService:
    """Shows the audit log."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, call: Call[Organization | Blob | None]
    ) -> pb.ListAuditEntriesResponse:
        place = call.place
        order_by = request.order_by or "create_time"
        filters = (request.user, request.method, str(request.failures_only), order_by)
        page = Page.parse(request, place.organization_id, place.blob_id or "", *filters)
        async with self._host.db.scan(call.caller.party) as tx:
            user = await _user(tx, request.user, call.caller) if request.user else None
            found = await store.page(
                tx,
                organization_id=place.organization_id,
                blob_id=place.blob_id or "",
                user_id=user.id if user else "",
                method=request.method,
                failures_only=request.failures_only,
                order_by=order_by,
                after=page.after,
                limit=page.limit + 1,
            )
        items, token = await page.fill(found, store.order(order_by).key, to_proto)
        return pb.ListAuditEntriesResponse(entries=items, next_page_token=token)

    async def WatchAuditEntries(
        self, request: pb.WatchAuditEntriesRequest, call: Call[Organization | Blob | None]
    ) -> AsyncIterator[bytes]:
        place = call.place
        async with self._host.db.read() as tx:
            check_range(request.after_sequence, await store.last_sequence(tx))

        async def read(after: int) -> list[EntryLine]:
            async with self._host.db.scan(call.caller.party, patient=True) as tx:
                found = await store.page(
                    tx, organization_id=place.organization_id, blob_id=place.blob_id or "", after=str(after), limit=MAX_BATCH
                )
            return [EntryLine(sequence=entry.sequence, event=to_proto(entry).SerializeToString()) for entry in found]

        watch = Watch(
            topic=audit.TOPIC,
            read=read,
            number=lambda line: line.sequence,
            progress_seconds=self._host.settings.progress_seconds,
        )
        async for batch in watch.stream(
            call, self._host.bell, self._host.drain, request.after_sequence, replay_only=request.replay_only
        ):
            yield pack(batch, self._host.clock())


async def _user(tx: Transaction, reference: str, caller: Caller) -> User:
    """The user whose entries are asked for. Raises NotFound."""
    user = await user_of(tx, grammar.parse("user", "user", reference), caller)
    if user is None:
        raise NotFound("user", reference)
    return user
