"""ModelService on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from blobhub.v1 import model_pb2 as pb

from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.blobtypes.values import Entry
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import ContentLost, InvalidValue
from blobhub_server.objects.contract import ObjectNotFound
from blobhub_server.objects.grant import Grant
from blobhub_server.onnx.errors import TYPE
from blobhub_server.onnx.intake import Announced, Incoming, Intake
from blobhub_server.onnx.message import to_artifact, to_proto
from blobhub_server.onnx.models import MODEL, Model, Models
from blobhub_server.rpc.wire import repeated, to_timestamp

_CHUNK = pb.DownloadModelResponse.DESCRIPTOR.fields_by_name["chunk"].number


class ModelService:
    """Takes in, describes and hands out models."""

    def __init__(self, host: Host, models: Models, intake: Intake) -> None:
        self._host = host
        self._models = models
        self._intake = intake

    async def PutModel(self, request: pb.PutModelRequest, call: Call[RevisionView]) -> pb.PutModelResponse:
        incoming = await self._store(request, call, _alone(request.content), size=len(request.content))

        async def make(tx: Transaction) -> pb.PutModelResponse:
            operation = await self._intake.begin(tx, call.resource, incoming, call.caller.actor_id)
            return pb.PutModelResponse(operation=operation)

        return await call.once(make)

    async def UploadModel(
        self, requests: AsyncIterator[pb.UploadModelRequest], call: Call[RevisionView]
    ) -> pb.UploadModelResponse:
        first = await anext(requests)
        with self._intake.one_more(call.caller.identity):
            incoming = await self._store(first, call, _chunks(first, requests), size=first.size)

        async def make(tx: Transaction) -> pb.UploadModelResponse:
            operation = await self._intake.begin(tx, call.resource, incoming, call.caller.actor_id)
            return pb.UploadModelResponse(operation=operation)

        return await call.once(make)

    async def GetModel(self, request: pb.GetModelRequest, call: Call[RevisionView]) -> pb.GetModelResponse:
        return pb.GetModelResponse(model=to_proto(await self._find(request, call)))

    async def GetModelGraph(self, request: pb.GetModelGraphRequest, call: Call[RevisionView]) -> pb.GetModelGraphResponse:
        signature = (await self._find(request, call)).signature
        dot = request.format == pb.MODEL_GRAPH_FORMAT_DOT
        return pb.GetModelGraphResponse(text=signature.dot if dot else signature.mermaid)

    async def DownloadModel(
        self, request: pb.DownloadModelRequest, call: Call[RevisionView]
    ) -> AsyncIterator[pb.DownloadModelResponse | bytes]:
        entry = await self._find_artifact(request, call)
        if request.offset > entry.size:
            raise InvalidValue("offset", f"{entry.name} has {entry.size} bytes")
        yield pb.DownloadModelResponse(artifact=to_artifact(entry))
        if request.offset == entry.size:
            return
        try:
            async for chunk in self._host.objects.read(entry.digest, request.offset, request.length or None):
                yield repeated(_CHUNK, [chunk])  # A message would copy it twice more.
        except ObjectNotFound:  # The entry exists, so the bytes were lost.
            raise ContentLost(entry.digest) from None

    async def SignModelDownload(
        self, request: pb.SignModelDownloadRequest, call: Call[RevisionView]
    ) -> pb.SignModelDownloadResponse:
        entry = await self._find_artifact(request, call)
        grant = Grant.to_get(entry.digest, actor_id=call.caller.actor_id, now=self._host.clock())
        signed = await self._host.objects.sign(grant)
        return pb.SignModelDownloadResponse(
            artifact=to_artifact(entry),
            method=signed.method,
            url=signed.url,
            headers=signed.headers,
            expire_time=to_timestamp(signed.expire_time),
        )

    async def DeleteModel(self, request: pb.DeleteModelRequest, call: Call[RevisionView]) -> pb.DeleteModelResponse:
        revision = call.resource.require_type(TYPE)

        async def make(tx: Transaction) -> pb.DeleteModelResponse:
            etag = await self._models.delete(tx, revision.id, request.revision, etag=request.etag)
            return pb.DeleteModelResponse(revision_etag=etag)

        return await call.once(make)

    async def _store(
        self,
        request: pb.PutModelRequest | pb.UploadModelRequest,
        call: Call[RevisionView],
        chunks: AsyncIterator[bytes],
        *,
        size: int,
    ) -> Incoming:
        """Store the bytes of a call. Raises what `Intake.require_takes` and `Intake.store` raise."""
        max_bytes = await self._intake.require_takes(
            call.resource, request.revision, etag=request.etag, create_only=request.create_only
        )
        announced = Announced(size=size, sha256=request.sha256)
        digest, stored_bytes = await self._intake.store(call.resource, chunks, announced, max_bytes)
        return Incoming(
            digest=digest,
            size=stored_bytes,
            archive=request.form == pb.MODEL_FORM_TAR_GZ,
            etag=request.etag,
            create_only=request.create_only,
        )

    async def _find(self, request: pb.GetModelRequest | pb.GetModelGraphRequest, call: Call[RevisionView]) -> Model:
        revision = call.resource.require_type(TYPE)
        return await self._models.find(revision.id, request.revision, call.caller.party)

    async def _find_artifact(
        self, request: pb.DownloadModelRequest | pb.SignModelDownloadRequest, call: Call[RevisionView]
    ) -> Entry:
        revision = call.resource.require_type(TYPE)
        entries: Mapping[str, Entry] = await self._models.find_entries(revision.id, request.revision)
        return entries[request.artifact or MODEL]


async def _alone(content: bytes) -> AsyncIterator[bytes]:
    """The bytes of a call with one message."""
    yield content


async def _chunks(first: pb.UploadModelRequest, others: AsyncIterator[pb.UploadModelRequest]) -> AsyncIterator[bytes]:
    """The bytes of an upload. Raises InvalidValue for a message that says again what the first one has said."""
    yield first.chunk
    async for request in others:
        if request.revision:
            raise InvalidValue("revision", "only the first message says what is coming; the others have a `chunk` alone")
        yield request.chunk
