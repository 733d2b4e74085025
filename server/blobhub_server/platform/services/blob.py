"""BlobService on the wire."""

from __future__ import annotations

from typing import Any

from blobhub.v1 import blob_pb2 as pb
from blobhub.v1 import blob_pb2_grpc as rpc
from sqlalchemy.exc import IntegrityError

from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import AlreadyExists
from blobhub_server.platform.calls import located
from blobhub_server.platform.rules.blob import PRIVATE, PUBLIC, Blob
from blobhub_server.platform.rules.revision import DRAFT, Revision
from blobhub_server.platform.services.revision import to_proto as revision_to_proto
from blobhub_server.platform.store import blob as store
from blobhub_server.platform.store import revision as revision_store
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import to_timestamp

_VISIBILITIES = {PRIVATE: pb.VISIBILITY_PRIVATE, PUBLIC: pb.VISIBILITY_PUBLIC}


def to_proto(blob: Blob) -> pb.Blob:
    """A blob as its message."""
    return pb.Blob(
        id=blob.id,
        alias=blob.alias,
        org_id=blob.org_id,
        type=blob.type,
        visibility=_VISIBILITIES[blob.visibility],
        description=blob.description,
        default_revision_id=blob.default_revision_id,
        create_time=to_timestamp(blob.create_time),
        update_time=to_timestamp(blob.update_time),
        etag=blob.etag,
    )


class BlobService(rpc.BlobServiceServicer):
    """Creates and finds blobs."""

    def __init__(self, host: Host, types: BlobTypes) -> None:
        self._host = host
        self._types = types

    async def CreateBlob(self, request: pb.CreateBlobRequest, context: Any) -> pb.CreateBlobResponse:
        """See blob.proto."""
        type_ = self._types.get(request.type).name
        org_id = located().org_id

        async def make(tx: Transaction) -> pb.CreateBlobResponse:
            blob, draft = self._new(request, type_, org_id)
            try:
                async with tx.savepoint():
                    await store.insert(tx, blob)
            except IntegrityError:
                raise AlreadyExists("blob", request.alias) from None
            await revision_store.insert(tx, draft)
            return pb.CreateBlobResponse(blob=to_proto(blob), revision=revision_to_proto(draft))

        return await self._host.calls.once(request, pb.CreateBlobResponse, make)

    def _new(self, request: pb.CreateBlobRequest, type_: str, org_id: str) -> tuple[Blob, Revision]:
        """A blob and its first draft, which is its default revision."""
        now, ids = self._host.clock(), self._host.ids
        blob_id = ids()
        draft = Revision(ids(), blob_id, DRAFT, None, "", None, "", "", now, now, ids())
        blob = Blob(
            id=blob_id,
            org_id=org_id,
            alias=request.alias,
            type=type_,
            visibility=PUBLIC if request.visibility == pb.VISIBILITY_PUBLIC else PRIVATE,
            description=request.description,
            default_revision_id=draft.id,
            create_time=now,
            update_time=now,
            etag=ids(),
        )
        return blob, draft

    async def GetBlob(self, request: pb.GetBlobRequest, context: Any) -> pb.GetBlobResponse:
        """See blob.proto."""
        return pb.GetBlobResponse(blob=to_proto(located().resource))

    async def ListBlobs(self, request: pb.ListBlobsRequest, context: Any) -> pb.ListBlobsResponse:
        """See blob.proto."""
        org_id = located().org_id
        page = Page.parse(request, org_id, request.type)
        async with self._host.db.read() as tx:
            found = await store.page(tx, org_id, type_=request.type, after=page.after, limit=page.limit + 1)
        items, token = page.cut(found, lambda blob: blob.id)
        return pb.ListBlobsResponse(blobs=map(to_proto, items), next_page_token=token)
