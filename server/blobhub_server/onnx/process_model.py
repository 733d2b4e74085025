"""The operation `onnx.process_model`: looks at stored bytes in another process, and makes them the model of a draft."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from blobhub.v1 import model_pb2

from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.operations import Finish, Work
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import ContentLost
from blobhub_server.objects.contract import ObjectNotFound
from blobhub_server.onnx.archive import ArchiveReader
from blobhub_server.onnx.errors import ExtraNotInstalled, ModelTooLarge, refusal_error
from blobhub_server.onnx.intake import Incoming
from blobhub_server.onnx.limit import MODEL_BYTES
from blobhub_server.onnx.message import to_proto
from blobhub_server.onnx.models import DOCUMENT, MODEL, SIGNATURE, Model, Models
from blobhub_server.onnx.processing.processor import ModelProcessor
from blobhub_server.onnx.processing.report import Report
from blobhub_server.onnx.refusal import ModelRefused, Refused
from blobhub_server.onnx.runtime import ExtraMissing
from blobhub_server.onnx.settings import OnnxSettings
from blobhub_server.onnx.spool import Spool, spooling

CHUNK_BYTES = 1 << 20
MAX_SIGNATURE_BYTES = 1 << 20
"""Of all that is stored of a model beside its bytes and its graph. GetModel and the operation answer it in a message."""


@dataclass(frozen=True, slots=True)
class _Processed:
    """What an accepted model is stored as: digest and size by entry; and what is known of it."""

    stored: Mapping[str, tuple[str, int]]
    report: Report


class ProcessModel:
    """Performs the operation."""

    def __init__(self, host: Host, models: Models, settings: OnnxSettings) -> None:
        self._host = host
        self._models = models
        self._settings = settings
        self._processor = ModelProcessor(settings.model_processes)

    async def perform(self, work: Work) -> Finish:
        """As `blobtypes.operations.Perform`. Raises RefusedModel, ExtraNotInstalled, ContentLost."""
        incoming = Incoming.read(work.data)
        async with self._host.db.read() as tx:
            max_bytes = await self._host.limits.value(
                tx, MODEL_BYTES, organization_id=work.organization_id, blob_id=work.blob_id
            )
        async with spooling(self._host.settings.data_dir / "models") as spool:
            await self._fill(spool, incoming, max_bytes, work)
            await work.report("checking")
            report = await self._examine(spool, max_bytes, work)
            await work.report("storing")
            processed = await self._store(spool, incoming, report)
        return partial(self._finish, work.revision_id, incoming, processed)

    async def _fill(self, spool: Spool, incoming: Incoming, max_bytes: int, work: Work) -> None:
        """Bring the bytes of the model into a file. Raises RefusedModel for an archive that is none."""
        archive = ArchiveReader(max_bytes) if incoming.archive else None
        read = 0
        try:
            async for chunk in self._host.objects.read(incoming.digest):
                read += len(chunk)
                await spool.append(chunk if archive is None else archive.feed(chunk))
                await work.report("reading", read / incoming.size)
            if archive is not None:
                archive.close()
        except ObjectNotFound:  # The operation keeps them, so they were lost.
            raise ContentLost(incoming.digest) from None
        except ModelRefused as error:
            raise refusal_error(error.refused) from None
        await spool.flush()

    async def _examine(self, spool: Spool, max_bytes: int, work: Work) -> Report:
        """What the model in the file is. Raises RefusedModel, ExtraNotInstalled."""
        limits, party = self._settings.processing_limits(max_bytes), (work.organization_id, work.actor_id)
        try:
            outcome = await self._processor.process(spool.reader, limits, party)
        except ExtraMissing:
            raise ExtraNotInstalled from None
        if isinstance(outcome, Refused):
            raise refusal_error(outcome)
        return outcome

    async def _store(self, spool: Spool, incoming: Incoming, report: Report) -> _Processed:
        """Store what is not stored yet. Raises ModelTooLarge, DigestMismatch when the file has changed meanwhile."""
        signature = report.encode()
        if len(signature) > MAX_SIGNATURE_BYTES:
            raise ModelTooLarge(
                f"the names and shapes of the model's inputs and outputs, and its drawing, take {len(signature)} bytes; "
                f"at most {MAX_SIGNATURE_BYTES} are allowed"
            )
        contents = self._host.contents
        stored = {
            MODEL: await self._store_model(spool, incoming, report.sha256),
            DOCUMENT: await contents.upload(report.model_json.encode()),
            SIGNATURE: await contents.upload(signature),
        }
        return _Processed(stored=stored, report=report)

    async def _store_model(self, spool: Spool, incoming: Incoming, digest: str) -> tuple[str, int]:
        """The model's bytes, with the digest of those that were examined. Those of no archive are there already."""
        if not incoming.archive and digest == incoming.digest:
            return incoming.digest, incoming.size
        async with self._host.objects.write() as writer:
            async for chunk in spool.chunks(CHUNK_BYTES):
                await writer.append(chunk)
            return await writer.commit(digest if incoming.archive else incoming.digest), writer.size

    async def _finish(
        self, revision_id: str, incoming: Incoming, processed: _Processed, tx: Transaction
    ) -> model_pb2.ProcessedModel:
        """Write the model, as part of the transaction that ends the operation. Raises what `Models.write` raises."""
        entries, etag = await self._models.write(
            tx, revision_id, processed.stored, etag=incoming.etag, create_only=incoming.create_only
        )
        model = Model(entries=entries, signature=processed.report)
        return model_pb2.ProcessedModel(model=to_proto(model), revision_etag=etag)
