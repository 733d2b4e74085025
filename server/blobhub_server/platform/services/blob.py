"""BlobService on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator

from blobhub.v1 import blob_event_pb2
from blobhub.v1 import blob_pb2 as pb

from blobhub_server.blobtypes.access import Role
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import DELETIONS, Host
from blobhub_server.blobtypes.etag import require_etag
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.errors import PermissionDenied
from blobhub_server.platform.admission import gate
from blobhub_server.platform.admission.absence import absent_revision
from blobhub_server.platform.admission.drafts import shown_to
from blobhub_server.platform.admission.locators import version_of
from blobhub_server.platform.blobs import events as blob_events
from blobhub_server.platform.blobs.aliases import change_alias, claim_alias
from blobhub_server.platform.blobs.default_revisions import DefaultRevisions
from blobhub_server.platform.blobs.deletion import mark_blob
from blobhub_server.platform.blobs.events import BlobEvents
from blobhub_server.platform.rules import access
from blobhub_server.platform.rules import blob as rules
from blobhub_server.platform.rules import reference as grammar
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.rules.revision import Revision, make_draft
from blobhub_server.platform.services.revision import to_proto as revision_to_proto
from blobhub_server.platform.services.visibility import SHARED_FIELDS, changed_columns, from_visibility, to_visibility
from blobhub_server.platform.store import blob as store
from blobhub_server.platform.store import blob_event as event_store
from blobhub_server.platform.store import organization as organization_store
from blobhub_server.platform.store import revision as revision_store
from blobhub_server.rpc.masks import changed_fields
from blobhub_server.rpc.paging import Page, order_of
from blobhub_server.rpc.watch import MAX_BATCH, Watch, check_range, pack
from blobhub_server.rpc.wire import to_timestamp


def to_proto(blob: Blob) -> pb.Blob:
    """A blob as its message."""
    return pb.Blob(
        id=blob.id,
        alias=blob.alias,
        organization_id=blob.organization_id,
        type=blob.type,
        visibility=to_visibility(blob.visibility),
        description=blob.description,
        default_revision_id=blob.default_revision_id,
        create_time=to_timestamp(blob.create_time),
        update_time=to_timestamp(blob.update_time),
        etag=blob.etag,
        first_sequence=min(1, blob.last_sequence),
        last_sequence=blob.last_sequence,
    )


class BlobService:
    """Creates, finds, changes, deletes and watches blobs."""

    def __init__(self, host: Host, types: BlobTypes, events: BlobEvents) -> None:
        self._host = host
        self._types = types
        self._events = events
        self._defaults = DefaultRevisions(host, types, events)

    async def CreateBlob(self, request: pb.CreateBlobRequest, call: Call[Organization]) -> pb.CreateBlobResponse:
        type_, organization_id = self._types.get(request.type).name, call.resource.id
        access.require_public_creation(call.role, public=request.visibility == pb.VISIBILITY_PUBLIC)

        async def make(tx: Transaction) -> pb.CreateBlobResponse:
            blob, draft = self._new(request, type_, organization_id)
            held = await organization_store.count_blobs(tx, organization_id, 1)
            if held is None:
                raise PermissionDenied
            await self._host.limits.require(tx, "organization.blobs", organization_id=organization_id, blob_id="", held=held)
            async with claim_alias(tx, "blob", organization_id, blob.alias, blob.id):
                await store.insert(tx, blob)
            await revision_store.insert(tx, draft)
            created = blob_event_pb2.BlobCreated(alias=blob.alias, revision=revision_to_proto(draft))
            await self._events.append(tx, blob.id, shows_draft=True, blob_created=created)
            return pb.CreateBlobResponse(blob=await self._current_proto(tx, blob.id), revision=revision_to_proto(draft))

        return await call.once(make)

    def _new(self, request: pb.CreateBlobRequest, type_: str, organization_id: str) -> tuple[Blob, Revision]:
        """A blob and its first draft, which is its default revision."""
        now, ids = self._host.clock(), self._host.ids
        blob_id = ids()
        draft = make_draft(id_=ids(), blob_id=blob_id, base=None, comment="", now=now, etag=ids())
        blob = Blob(
            id=blob_id,
            organization_id=organization_id,
            alias=request.alias,
            type=type_,
            visibility=from_visibility(request.visibility),
            description=request.description,
            default_revision_id=draft.id,
            create_time=now,
            update_time=now,
            etag=ids(),
            last_sequence=0,
            bytes=0,
        )
        return blob, draft

    async def GetBlob(self, request: pb.GetBlobRequest, call: Call[Blob]) -> pb.GetBlobResponse:
        if call.role is not Role.NONE:
            return pb.GetBlobResponse(blob=to_proto(call.resource))
        async with self._host.db.read() as tx:
            (blob,) = await shown_to(tx, call.caller, [call.resource])
        return pb.GetBlobResponse(blob=to_proto(blob))

    async def ListBlobs(self, request: pb.ListBlobsRequest, call: Call[Organization]) -> pb.ListBlobsResponse:
        organization_id, order_by = call.resource.id, order_of(request)
        visibility = from_visibility(request.visibility, unset="")
        outsider = call.caller if call.role is Role.NONE else None
        filters = (organization_id, request.type, visibility, request.alias_prefix, order_by)
        page = Page.parse(request, outsider.identity if outsider else "", *filters)
        async with self._host.db.scan(call.caller.party) as tx:
            found = await store.page(
                tx,
                organization_id,
                seen_by=outsider,
                order_by=order_by,
                type_=request.type,
                alias_prefix=request.alias_prefix,
                visibility=visibility,
                after=page.after,
                limit=page.limit + 1,
            )
            found = await shown_to(tx, outsider, found) if outsider else found
        items, token = await page.fill(found, Order.parse(store.blobs, order_by).key, to_proto)
        return pb.ListBlobsResponse(blobs=items, next_page_token=token)

    async def UpdateBlob(self, request: pb.UpdateBlobRequest, call: Call[Blob]) -> pb.UpdateBlobResponse:
        fields = changed_fields(request, *SHARED_FIELDS, "default_revision")
        access.require_settings_role(call.role, fields)
        moves = "default_revision" in fields and request.default_revision != ""

        async def make(tx: Transaction) -> pb.UpdateBlobResponse:
            current = await self._lock(tx, call.resource.id, request.etag)
            default = await self._default(tx, current, request) if moves else None
            await self._update(tx, current, request, fields)
            if default is not None:
                await self._defaults.move(tx, current, default)
            return pb.UpdateBlobResponse(blob=await self._current_proto(tx, current.id))

        return await call.once(make)

    async def _update(self, tx: Transaction, current: Blob, request: pb.UpdateBlobRequest, fields: set[str]) -> None:
        """Change alias, description and visibility, where they are among the fields."""
        values = changed_columns(request, current, fields, now=self._host.clock(), etag=self._host.ids())
        async with change_alias(tx, "blob", current.organization_id, current.alias, values.get("alias"), current.id):
            await store.update(tx, current.id, **values)
        if fields & set(SHARED_FIELDS):
            now = await self._lock(tx, current.id, "")
            event = blob_event_pb2.BlobUpdated(alias=now.alias, public=now.public)
            await self._events.append(tx, now.id, blob_updated=event)
            await self._host.bell.ring_after_commit(tx, [gate.TOPIC])

    async def _default(self, tx: Transaction, blob: Blob, request: pb.UpdateBlobRequest) -> Revision:
        """The revision that is to be the default one. Raises NotFound."""
        version = grammar.parse("version", "default_revision", request.default_revision).version
        revision = await version_of(tx, blob, version, "default_revision")
        if revision is None:
            raise await absent_revision(tx, blob.id, f"{request.blob}@{version}")
        return revision

    async def DeleteBlob(self, request: pb.DeleteBlobRequest, call: Call[Blob]) -> pb.DeleteBlobResponse:
        async def make(tx: Transaction) -> pb.DeleteBlobResponse:
            await organization_store.count_blobs(tx, call.resource.organization_id, -1)
            current = await self._lock(tx, call.resource.id, request.etag)
            rules.require_unused(await self._types.in_use(tx, current.type, current.id), cascade=request.cascade)
            await mark_blob(tx, current)
            await self._host.bell.ring_after_commit(tx, [gate.TOPIC, DELETIONS])
            return pb.DeleteBlobResponse()

        return await call.once(make)

    async def WatchBlob(self, request: pb.WatchBlobRequest, call: Call[Blob]) -> AsyncIterator[bytes]:
        blob = call.resource
        check_range(request.after_sequence, blob.last_sequence)
        watch = Watch(
            topic=blob_events.topic(blob.id),
            read=lambda after: self._read(call, after),
            number=lambda line: line.sequence,
            progress_seconds=self._host.settings.progress_seconds,
        )
        async for batch in watch.stream(
            call, self._host.bell, self._host.drain, request.after_sequence, replay_only=request.replay_only
        ):
            yield pack(batch, self._host.clock())

    async def _read(self, call: Call[Blob], after: int) -> list[event_store.BlobEventLine]:
        drafts = call.role is not Role.NONE
        async with self._host.db.scan(call.caller.party, patient=True) as tx:
            return await event_store.page(tx, call.resource.id, drafts=drafts, after=after, limit=MAX_BATCH)

    async def _lock(self, tx: Transaction, blob_id: str, etag: str) -> Blob:
        """Lock a blob and return it as it is now. Raises StaleEtag; PermissionDenied when it is gone."""
        current = await store.get(tx, blob_id, lock=True)
        if current is None:
            raise PermissionDenied
        require_etag(etag, current.etag)
        return current

    async def _current_proto(self, tx: Transaction, blob_id: str) -> pb.Blob:
        """A blob that is locked. Raises PermissionDenied when its organization, which is not, was deleted meanwhile."""
        blob = await store.get(tx, blob_id)
        if blob is None:
            raise PermissionDenied
        return to_proto(blob)
