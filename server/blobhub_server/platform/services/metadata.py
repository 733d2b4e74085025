"""MetadataService on the wire."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any

from blobhub.v1 import blob_event_pb2
from blobhub.v1 import metadata_pb2 as pb

from blobhub_server.blobtypes import json_field
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.etag import require_etag
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import AlreadyExists, NotFound, PermissionDenied
from blobhub_server.platform.admission.locators import BlobRevision
from blobhub_server.platform.blobs.events import BlobEvents
from blobhub_server.platform.rules import metadata as rules
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.metadata import MetadataRecord
from blobhub_server.platform.rules.revision import DRAFT
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import metadata as store
from blobhub_server.platform.store import revision as revision_store
from blobhub_server.rpc.masks import changed_fields
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import repeated, to_timestamp
from blobhub_server.turnstile import off_loop

KIND = "metadata record"


def to_proto(record: MetadataRecord, *, allowance: json_field.ItemAllowance | None = None) -> pb.MetadataRecord:
    """A record as its message. `allowance` is that of a list, whose values share it."""
    made = pb.MetadataRecord(
        parent_id=record.parent_id,
        blob_id=record.blob_id,
        key=record.key,
        description=record.description,
        create_time=to_timestamp(record.create_time),
        update_time=to_timestamp(record.update_time),
        etag=record.etag,
    )
    json_field.fill_text(made, "value", record.value, allowance=allowance)
    return made


def _listed(record: MetadataRecord, allowance: json_field.ItemAllowance) -> bytes:
    """A record of a list, encoded; the values of the list share the allowance."""
    return to_proto(record, allowance=allowance).SerializeToString()


def _resolved(record: MetadataRecord, allowance: json_field.ItemAllowance) -> bytes:
    """A record that holds for a revision, encoded, likewise."""
    of_blob = record.parent_id == record.blob_id
    source = pb.METADATA_SOURCE_BLOB if of_blob else pb.METADATA_SOURCE_REVISION
    return pb.ResolvedMetadata(record=to_proto(record, allowance=allowance), source=source).SerializeToString()


class MetadataService:
    """Stores metadata records of blobs and revisions."""

    def __init__(self, host: Host, events: BlobEvents) -> None:
        self._host = host
        self._events = events

    async def CreateMetadata(
        self, request: pb.CreateMetadataRequest, call: Call[Blob | BlobRevision]
    ) -> pb.CreateMetadataResponse:
        value = await _value(request, call)

        async def make(tx: Transaction) -> pb.CreateMetadataResponse:
            parent = await _lock_parent(tx, call)
            if await store.get(tx, parent.id, request.key) is not None:
                raise AlreadyExists(KIND, request.key)
            rules.require_room(parent.id, await store.count(tx, parent.id))
            now, etag = self._host.clock(), self._host.ids()
            record = MetadataRecord(
                parent_id=parent.id,
                blob_id=parent.blob_id,
                key=request.key,
                value=value,
                description=request.description,
                create_time=now,
                update_time=now,
                etag=etag,
            )
            await store.insert(tx, record)
            created = blob_event_pb2.MetadataCreated(parent_id=parent.id, key=record.key, etag=etag)
            await self._events.append(tx, parent.blob_id, shows_draft=parent.is_draft, metadata_created=created)
            return pb.CreateMetadataResponse(record=to_proto(record))

        return await call.once(make)

    async def GetMetadata(self, request: pb.GetMetadataRequest, call: Call[Blob | BlobRevision]) -> pb.GetMetadataResponse:
        async with self._host.db.read() as tx:
            record = await _get_record(tx, call.resource.id, request.key)
        return pb.GetMetadataResponse(record=to_proto(record))

    async def ListMetadata(self, request: pb.ListMetadataRequest, call: Call[Blob | BlobRevision]) -> bytes:
        parent_id, order_by = call.resource.id, request.order_by or "key"
        page = Page.parse(request, parent_id, request.key_prefix, order_by)
        async with self._host.db.scan(call.caller.party) as tx:
            found = await store.page(
                tx, parent_id, order_by=order_by, prefix=request.key_prefix, after=page.after, limit=page.limit + 1
            )
        make = partial(_listed, allowance=json_field.ItemAllowance())
        records, token = await page.fill(found, attrgetter("key"), make, size_of=len)
        return repeated(1, records) + pb.ListMetadataResponse(next_page_token=token).SerializeToString()

    async def ResolveMetadata(self, request: pb.ResolveMetadataRequest, call: Call[BlobRevision]) -> bytes:
        found_at = call.resource
        page = Page.parse(request, found_at.revision.id, request.key_prefix, *request.keys)
        async with self._host.db.scan(call.caller.party) as tx:
            found = await store.resolve(
                tx,
                found_at.blob.id,
                found_at.revision.id,
                keys=request.keys,
                prefix=request.key_prefix,
                after=page.after,
                limit=page.limit + 1,
            )
        make = partial(_resolved, allowance=json_field.ItemAllowance())
        resolved, token = await page.fill(found, attrgetter("key"), make, size_of=len)
        return repeated(1, resolved) + pb.ResolveMetadataResponse(next_page_token=token).SerializeToString()

    async def UpdateMetadata(
        self, request: pb.UpdateMetadataRequest, call: Call[Blob | BlobRevision]
    ) -> pb.UpdateMetadataResponse:
        fields = changed_fields(request, "value", "value_json", "description")
        value = await _value(request, call)

        async def make(tx: Transaction) -> pb.UpdateMetadataResponse:
            parent = await _lock_parent(tx, call)
            current = await _get_record(tx, parent.id, request.key)
            require_etag(request.etag, current.etag)
            changed: dict[str, Any] = {"update_time": self._host.clock(), "etag": self._host.ids()}
            changed |= {"value": value} if {"value", "value_json"} & fields else {}
            changed |= {"description": request.description} if "description" in fields else {}
            await store.update(tx, parent.id, request.key, **changed)
            updated = blob_event_pb2.MetadataUpdated(parent_id=parent.id, key=request.key, etag=changed["etag"])
            await self._events.append(tx, parent.blob_id, shows_draft=parent.is_draft, metadata_updated=updated)
            return pb.UpdateMetadataResponse(record=to_proto(replace(current, **changed)))

        return await call.once(make)

    async def DeleteMetadata(
        self, request: pb.DeleteMetadataRequest, call: Call[Blob | BlobRevision]
    ) -> pb.DeleteMetadataResponse:
        async def make(tx: Transaction) -> pb.DeleteMetadataResponse:
            parent = await _lock_parent(tx, call)
            current = await _get_record(tx, parent.id, request.key)
            require_etag(request.etag, current.etag)
            await store.delete(tx, parent.id, request.key)
            deleted = blob_event_pb2.MetadataDeleted(parent_id=parent.id, key=request.key)
            await self._events.append(tx, parent.blob_id, shows_draft=parent.is_draft, metadata_deleted=deleted)
            return pb.DeleteMetadataResponse()

        return await call.once(make)


@dataclass(frozen=True, slots=True)
class _Parent:
    """The blob or revision that a record is on."""

    id: str
    blob_id: str
    is_draft: bool


async def _value(request: pb.CreateMetadataRequest | pb.UpdateMetadataRequest, call: Call[Any]) -> str:
    """The value in a request, as compact JSON text. Raises InvalidValue."""
    read = partial(json_field.read, request, "value", rules.MAX_BYTES)
    return (await off_loop(request.ByteSize(), call.caller.party, read))[1]


async def _lock_parent(tx: Transaction, call: Call[Blob | BlobRevision]) -> _Parent:
    """Lock the blob of a call; return the parent as it is now.

    Raises PermissionDenied and NotFound when they were deleted since the call was admitted.
    """
    parent_id = call.resource.id
    blob = await blob_store.get(tx, call.place.blob_id or "", lock=True)
    if blob is None:
        raise PermissionDenied
    revision = await revision_store.get(tx, parent_id) if parent_id != blob.id else None
    if parent_id != blob.id and revision is None:
        raise NotFound("revision", parent_id)
    return _Parent(id=parent_id, blob_id=blob.id, is_draft=revision is not None and revision.phase == DRAFT)


async def _get_record(tx: Transaction, parent_id: str, key: str) -> MetadataRecord:
    record = await store.get(tx, parent_id, key)
    if record is None:
        raise NotFound(KIND, key, "ListMetadata lists the records that there are")
    return record
