"""Uploads of models in parts: from their begin to their end, within transactions. The blob is locked before an upload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, timedelta

from blobhub.v1 import operation_pb2

from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import BlobHubError, NotFound
from blobhub_server.onnx.errors import UploadNotOpen
from blobhub_server.onnx.limit import MODEL_BYTES, UPLOADS
from blobhub_server.onnx.models import Models, require_draft
from blobhub_server.onnx.rules import upload as rules
from blobhub_server.onnx.rules.upload import SentPart, Upload, UploadForm, UploadState
from blobhub_server.onnx.store import upload as store

COMPLETE = "onnx.complete_upload"
"""The kind of the operations that complete uploads; their data is the upload's id, as `upload_id`, and the `etag` and
`create_only` of the call, which are looked at again when the model is written."""

_STATES = {
    operation_pb2.OPERATION_STATE_PENDING: UploadState.COMPLETING,
    operation_pb2.OPERATION_STATE_RUNNING: UploadState.COMPLETING,
    operation_pb2.OPERATION_STATE_SUCCEEDED: UploadState.COMPLETED,
    operation_pb2.OPERATION_STATE_CANCELLED: UploadState.CANCELLED,
}


class Uploads:
    """Begins, completes and cancels uploads."""

    def __init__(self, host: Host, models: Models, lifetime: timedelta) -> None:
        """`lifetime` is how long an upload stays open."""
        self._host = host
        self._models = models
        self._lifetime = lifetime

    async def create(
        self,
        tx: Transaction,
        revision: RevisionView,
        actor_id: str,
        *,
        form: UploadForm,
        size: int,
        part_size: int,
        sha256: str | None,
        crc32c: int | None,
    ) -> Upload:
        """Store a new upload to a draft. Raises WrongPhase, LimitExceeded."""
        place = {"organization_id": revision.organization_id, "blob_id": revision.blob_id}
        await self._host.limits.lock(tx, **place)
        require_draft(revision)
        await self._host.limits.require(tx, MODEL_BYTES, **place, held=size)
        held = await store.count_unended(tx, revision.blob_id) + 1
        await self._host.limits.require(tx, UPLOADS, **place, held=held)
        now = self._host.clock()
        upload = Upload(
            id=self._host.ids(),
            **place,
            revision_id=revision.id,
            actor_id=actor_id,
            form=form,
            size=size,
            part_size=part_size,
            sha256=sha256,
            crc32c=crc32c,
            state=UploadState.OPEN,
            parts_digest=None,
            operation_id=None,
            object_digest=None,
            create_time=now,
            expire_time=now + self._lifetime,
            end_time=None,
        )
        await store.insert(tx, upload)
        return upload

    async def require_takes_parts(self, upload: Upload) -> None:
        """Refuse to sign for parts that could never be completed. Raises UploadNotOpen, WrongPhase."""
        upload.require_open(self._host.clock())
        async with self._host.db.read() as tx:
            require_draft(await self._revision(tx, upload.revision_id))

    async def complete(
        self,
        tx: Transaction,
        upload: Upload,
        sent: Sequence[SentPart],
        stored: Sequence[SentPart],
        actor_id: str,
        *,
        etag: str,
        create_only: bool,
    ) -> operation_pb2.Operation:
        """Begin the operation that completes an upload; the one that was begun, where that was with the same parts.

        `stored` are the parts that had come before the transaction. Raises UploadNotOpen, PartsMismatch, and what
        `Models.require_writable` raises.
        """
        upload, digest = await self._lock(tx, upload), rules.digest_of_parts(sent)
        if upload.operation_id is not None and upload.parts_digest == digest:
            begun = await self._host.operations.find(tx, [upload.operation_id])
            if upload.operation_id in begun:
                return begun[upload.operation_id]
            raise UploadNotOpen(upload.state, "")
        upload.require_open(self._host.clock())
        rules.require_stored(upload, sent, stored)
        revision = await self._revision(tx, upload.revision_id)
        await self._models.require_writable(tx, revision, revision.id, etag=etag, create_only=create_only)
        operation = await self._host.operations.begin(
            tx,
            kind=COMPLETE,
            revision=revision,
            actor_id=actor_id,
            data={"upload_id": upload.id, "etag": etag, "create_only": create_only},
        )
        upload.state, upload.parts_digest, upload.operation_id = UploadState.COMPLETING, digest, operation.id
        await store.update(tx, [upload])
        return operation

    async def cancel(self, tx: Transaction, upload: Upload) -> Upload:
        """Cancel an open upload; one that is cancelled stays as it is. Raises UploadNotOpen."""
        upload = await self._lock(tx, upload)
        (current,) = await self.current(tx, [upload])
        if current.state is UploadState.CANCELLED:
            return current
        upload.require_open(self._host.clock())
        upload.state, upload.end_time = UploadState.CANCELLED, self._host.clock()
        await store.update(tx, [upload])
        return upload

    async def current(self, tx: Transaction, uploads: Sequence[Upload]) -> list[Upload]:
        """Some uploads as they are now: that their time is over or their operation has ended may not be noted yet."""
        now = self._host.clock()
        operation_ids = [each.operation_id for each in uploads if each.state is UploadState.COMPLETING and each.operation_id]
        operations = await self._host.operations.find(tx, operation_ids) if operation_ids else {}
        found = []
        for upload in uploads:
            state, end_time = upload.state_at(now), upload.end_time
            if state is UploadState.COMPLETING:
                operation = operations.get(upload.operation_id or "", _GONE)
                state = _STATES.get(operation.state, UploadState.FAILED)
                if state is not UploadState.COMPLETING:
                    end_time = operation.end_time.ToDatetime(UTC) if operation.HasField("end_time") else now
            elif state is UploadState.EXPIRED:
                end_time = end_time or upload.expire_time
            found.append(replace(upload, state=state, end_time=end_time))
        return found

    async def _lock(self, tx: Transaction, upload: Upload) -> Upload:
        """Lock an upload, after its blob. Raises PermissionDenied, NotFound when it is gone."""
        await self._host.limits.lock(tx, organization_id=upload.organization_id, blob_id=upload.blob_id)
        locked = await store.get(tx, upload.id, lock=True)
        if locked is None:
            raise NotFound("model upload", upload.id)
        return locked

    async def _revision(self, tx: Transaction, revision_id: str) -> RevisionView:
        """The revision of an upload. Raises UploadNotOpen when it was discarded."""
        found = await self._host.revisions.resolve(tx, revision_id)
        if found is None:
            raise UploadNotOpen(_ORPHANED, "")
        if isinstance(found.resource, BlobHubError):
            raise found.resource
        return found.resource


_ORPHANED = "orphaned"
"""What an open upload is called whose draft was discarded."""
_GONE = operation_pb2.Operation()
"""What stands for an operation that is not kept any more."""
