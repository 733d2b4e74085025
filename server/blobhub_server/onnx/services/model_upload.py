"""ModelUploadService on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from blobhub.v1 import model_upload_pb2 as pb
from blobhub.v1.model_pb2 import ModelForm

from blobhub_server.blobtypes.access import Caller, Place, Resolution
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import BlobView, Host, RevisionView
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import WrongBlobType
from blobhub_server.objects.contract import UploadPart
from blobhub_server.objects.grant import Grant, SignedRequest
from blobhub_server.onnx.errors import TYPE
from blobhub_server.onnx.rules import upload as rules
from blobhub_server.onnx.rules.upload import SentPart, Upload, UploadForm, UploadState
from blobhub_server.onnx.store import upload as store
from blobhub_server.onnx.upload_upkeep import UploadUpkeep
from blobhub_server.onnx.uploads import Uploads
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import to_timestamp

_FORMS = {form: ModelForm.Value(f"MODEL_FORM_{form.name}") for form in UploadForm}
_FORM_OF = {number: form for form, number in _FORMS.items()} | {ModelForm.MODEL_FORM_UNSPECIFIED: UploadForm.ONNX}
_STATES = {state: pb.ModelUploadState.Value(f"MODEL_UPLOAD_STATE_{state.name}") for state in UploadState}
_STATE_OF = {number: state for state, number in _STATES.items()}
_MAY_BE = {
    UploadState.EXPIRED: (UploadState.EXPIRED, UploadState.OPEN),
    UploadState.FAILED: (UploadState.FAILED, UploadState.COMPLETING),
    UploadState.CANCELLED: (UploadState.CANCELLED, UploadState.COMPLETING),
}
"""The states that an upload is stored in while it is noted as another one: ends are noted some time after they come."""


def to_proto(upload: Upload) -> pb.ModelUpload:
    """An upload as its message."""
    return pb.ModelUpload(
        id=upload.id,
        blob_id=upload.blob_id,
        revision_id=upload.revision_id,
        form=_FORMS[upload.form],
        size=upload.size,
        sha256=upload.sha256 or "",
        crc32c=upload.crc32c,
        part_size=upload.part_size,
        part_count=upload.part_count,
        state=_STATES[upload.state],
        operation_id=upload.operation_id or "",
        actor_id=upload.actor_id,
        create_time=to_timestamp(upload.create_time),
        expire_time=to_timestamp(upload.expire_time),
        end_time=None if upload.end_time is None else to_timestamp(upload.end_time),
    )


class ModelUploadService:
    """Takes in models in parts."""

    def __init__(self, host: Host, uploads: Uploads, upkeep: UploadUpkeep) -> None:
        self._host = host
        self._uploads = uploads
        self._upkeep = upkeep

    async def CreateModelUpload(
        self, request: pb.CreateModelUploadRequest, call: Call[RevisionView]
    ) -> pb.CreateModelUploadResponse:
        revision = call.resource.require_type(TYPE)

        async def make(tx: Transaction) -> pb.CreateModelUploadResponse:
            upload = await self._uploads.create(
                tx,
                revision,
                call.caller.actor_id,
                form=_FORM_OF[request.form],
                size=request.size,
                part_size=rules.choose_part_size(request.size, request.part_size),
                sha256=request.sha256 or None,
                crc32c=request.crc32c if request.HasField("crc32c") else None,
            )
            return pb.CreateModelUploadResponse(model_upload=to_proto(upload))

        return await call.once(make)

    async def GetModelUpload(self, request: pb.GetModelUploadRequest, call: Call[Upload]) -> pb.GetModelUploadResponse:
        async with self._host.db.read() as tx:
            (upload,) = await self._uploads.current(tx, [call.resource])
        return pb.GetModelUploadResponse(model_upload=to_proto(upload))

    async def ListModelUploads(
        self, request: pb.ListModelUploadsRequest, call: Call[BlobView]
    ) -> pb.ListModelUploadsResponse:
        blob, order_by = call.resource, request.order_by or "create_time desc"
        if blob.type != TYPE:
            raise WrongBlobType(blob.type, TYPE)
        state = _STATE_OF.get(request.state)
        page = Page.parse(request, blob.id, state or "", order_by)
        states = _MAY_BE.get(state, (state,)) if state else ()
        async with self._host.db.scan(call.caller.party) as tx:
            stored = await store.page(tx, blob.id, states=states, order_by=order_by, after=page.after, limit=page.limit + 1)
            current = await self._uploads.current(tx, stored[: page.limit])
        more = current[-1].id if len(stored) > page.limit else ""
        found = [upload for upload in current if state in (None, upload.state)]
        items, token = await page.fill(found, lambda upload: upload.id, to_proto, more=more)
        return pb.ListModelUploadsResponse(model_uploads=items, next_page_token=token)

    async def SignModelUploadParts(
        self, request: pb.SignModelUploadPartsRequest, call: Call[Upload]
    ) -> pb.SignModelUploadPartsResponse:
        upload, now = call.resource, self._host.clock()
        await self._uploads.require_takes_parts(upload)
        parts = []
        for number in request.numbers:
            size = upload.size_of(number)
            grant = Grant.to_put(upload.id, number, size, actor_id=call.caller.actor_id, now=now)
            parts.append(_signed(number, size, await self._host.objects.sign(grant)))
        return pb.SignModelUploadPartsResponse(parts=parts)

    async def ListModelUploadParts(
        self, request: pb.ListModelUploadPartsRequest, call: Call[Upload]
    ) -> pb.ListModelUploadPartsResponse:
        page = Page.parse(request, call.resource.id)
        parts = await self._host.objects.parts(call.resource.id)
        found = [part for part in parts if _key(part) > page.after][: page.limit + 1]
        items, token = await page.fill(found, _key, _part)
        return pb.ListModelUploadPartsResponse(parts=items, next_page_token=token)

    async def CompleteModelUpload(
        self, request: pb.CompleteModelUploadRequest, call: Call[Upload]
    ) -> pb.CompleteModelUploadResponse:
        sent = [SentPart(number=part.number, etag=part.etag.strip('"')) for part in request.parts]
        rules.require_all(call.resource, sent)
        # Parts are removed only once the upload is not open any more, which the transaction sees.
        stored = _known(await self._host.objects.parts(call.resource.id))

        async def make(tx: Transaction) -> pb.CompleteModelUploadResponse:
            operation = await self._uploads.complete(
                tx,
                call.resource,
                sent,
                stored,
                call.caller.actor_id,
                etag=request.etag,
                create_only=request.create_only,
            )
            return pb.CompleteModelUploadResponse(operation=operation)

        return await call.once(make)

    async def CancelModelUpload(
        self, request: pb.CancelModelUploadRequest, call: Call[Upload]
    ) -> pb.CancelModelUploadResponse:
        async def make(tx: Transaction) -> pb.CancelModelUploadResponse:
            upload = await self._uploads.cancel(tx, call.resource)
            tx.after_commit(lambda: self._upkeep.discard_soon([upload.id]))
            return pb.CancelModelUploadResponse(model_upload=to_proto(upload))

        return await call.once(make)


async def locate_upload(host: Host, value: str, _caller: Caller) -> Resolution[Upload] | None:
    """The locator of uploads, by id."""
    async with host.db.read() as tx:
        upload = await store.get(tx, value.lower())
    if upload is None:
        return None
    place = Place(organization_id=upload.organization_id, blob_id=upload.blob_id)
    return Resolution(place=place, resource=upload, never_public=True)


def _known(parts: Iterable[UploadPart]) -> Sequence[SentPart]:
    return [SentPart(number=part.number, etag=part.etag, size=part.size) for part in parts]


def _key(part: UploadPart) -> str:
    return f"{part.number:05}"


def _part(part: UploadPart) -> pb.ModelUploadPart:
    return pb.ModelUploadPart(number=part.number, size=part.size, etag=part.etag)


def _signed(number: int, size: int, signed: SignedRequest) -> pb.SignedModelUploadPart:
    return pb.SignedModelUploadPart(
        number=number,
        size=size,
        method=signed.method,
        url=signed.url,
        headers=signed.headers,
        expire_time=to_timestamp(signed.expire_time),
    )
