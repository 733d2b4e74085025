"""Completing an upload: its parts become one object, which is compared with what was announced, and is then processed.

It can end anywhere and be begun anew. What has been reached is in the upload's row: once it names the object, the parts are
not needed any more. Until the operation has ended, that row keeps parts and object from being collected.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace

import google_crc32c
from google.protobuf.message import Message

from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.operations import Finish, Work
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import NotFound
from blobhub_server.objects.contract import DigestMismatch, PartMismatch
from blobhub_server.onnx.errors import ChecksumMismatch, PartsMismatch
from blobhub_server.onnx.intake import Incoming
from blobhub_server.onnx.process_model import ProcessModel
from blobhub_server.onnx.rules.upload import SentPart, Upload, UploadForm, UploadState, digest_of_parts
from blobhub_server.onnx.store import upload as store


class UploadCompletion:
    """Performs the operations that complete uploads."""

    def __init__(self, host: Host, process_model: ProcessModel) -> None:
        self._host = host
        self._process_model = process_model

    async def perform(self, work: Work) -> Finish:
        """Raises PartsMismatch, ChecksumMismatch, and what processing raises."""
        upload = await self._get(work.data["upload_id"])
        digest = upload.object_digest or await self._put_together(work, upload)
        incoming = Incoming(
            digest=digest,
            size=upload.size,
            archive=upload.form is UploadForm.TAR_GZ,
            etag=work.data["etag"],
            create_only=work.data["create_only"],
        )
        finish = await self._process_model.perform(replace(work, data=asdict(incoming), digest=digest))

        async def end(tx: Transaction) -> Message:
            answer = await finish(tx)
            locked = await store.get(tx, upload.id, lock=True)
            if locked is not None:
                locked.state, locked.end_time = UploadState.COMPLETED, self._host.clock()
                await store.update(tx, [locked])
            return answer

        return end

    async def _put_together(self, work: Work, upload: Upload) -> str:
        """Make one object of an upload's parts, and return its digest. Raises PartsMismatch, ChecksumMismatch."""
        await work.report("composing")
        digest = await self._compose(upload)
        if upload.crc32c is not None:
            await self._compare_crc32c(digest, upload.crc32c)

        async def note(tx: Transaction) -> None:
            locked = await store.get(tx, upload.id, lock=True)
            if locked is not None and locked.state is UploadState.COMPLETING:
                locked.object_digest = digest
                await store.update(tx, [locked])

        await self._host.db.transact(note)
        await self._host.objects.discard(upload.id)
        return digest

    async def _compose(self, upload: Upload) -> str:
        objects = self._host.objects
        parts = await objects.parts(upload.id)
        try:
            if digest_of_parts([SentPart(number=part.number, etag=part.etag) for part in parts]) != upload.parts_digest:
                raise PartMismatch(0)
            return await objects.compose(upload.id, parts, expected=upload.sha256, max_bytes=upload.size)
        except DigestMismatch as error:
            raise ChecksumMismatch("sha256", error.expected, error.actual) from None
        except PartMismatch:
            # A server that was frozen may come here when another one has composed the parts, and has removed them.
            current = await self._get(upload.id)
            if current.object_digest is None:
                raise PartsMismatch(1) from None
            return current.object_digest

    async def _compare_crc32c(self, digest: str, expected: int) -> None:
        """Raise ChecksumMismatch when an object has another CRC32C. All of it is read for that."""
        checksum = google_crc32c.Checksum()
        async for chunk in self._host.objects.read(digest):
            await asyncio.to_thread(checksum.update, chunk)
        actual = int.from_bytes(checksum.digest(), "big")
        if actual != expected:
            raise ChecksumMismatch("crc32c", f"{expected:08x}", f"{actual:08x}")

    async def _get(self, upload_id: str) -> Upload:
        async with self._host.db.read() as tx:
            upload = await store.get(tx, upload_id)
        if upload is None:
            raise NotFound("model upload", upload_id)
        return upload
