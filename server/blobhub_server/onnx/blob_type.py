"""The ONNX blob type: what `blobhub.model.onnx` is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

from blobhub.v1.onnx_error_pb2 import OnnxErrorReason

from blobhub_server.background import in_background
from blobhub_server.blobtypes.capabilities import Infers
from blobhub_server.blobtypes.contract import BlobType, Check, Content, ForeignService, Given, Host, Limit, Opened, Service
from blobhub_server.config import Settings
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import ContentLost, Violation
from blobhub_server.objects.contract import ObjectNotFound, ObjectStore
from blobhub_server.onnx import limit
from blobhub_server.onnx.completion import UploadCompletion
from blobhub_server.onnx.errors import TYPE
from blobhub_server.onnx.inference.engine import InferenceEngine
from blobhub_server.onnx.intake import PROCESS_MODEL, Intake
from blobhub_server.onnx.models import ENTRIES, MODEL, Models
from blobhub_server.onnx.oip import open_inference_pb2
from blobhub_server.onnx.oip.access import ACCESS, SERVICE
from blobhub_server.onnx.predictions import Predictions
from blobhub_server.onnx.process_model import ProcessModel
from blobhub_server.onnx.questions import Questions
from blobhub_server.onnx.runtime import ExtraMissing, require_extra
from blobhub_server.onnx.services.inference import InferenceService
from blobhub_server.onnx.services.model import ModelService
from blobhub_server.onnx.services.model_upload import ModelUploadService, locate_upload
from blobhub_server.onnx.services.open_inference import OpenInferenceService
from blobhub_server.onnx.settings import OnnxSettings
from blobhub_server.onnx.store import MIGRATIONS, TABLES
from blobhub_server.onnx.store import upload as upload_store
from blobhub_server.onnx.upload_upkeep import UploadUpkeep
from blobhub_server.onnx.uploads import COMPLETE, Uploads
from blobhub_server.start import StartWarning


class OnnxType(BlobType):
    """Models that are checked, described, handed out and asked."""

    name = TYPE
    title = "ONNX model"
    description = (
        "Stores a model in the ONNX format: checked before it is there, described by what it takes and gives, and "
        "handed out byte for byte as it was sent."
    )

    offers = (Infers,)
    settings = OnnxSettings
    reasons = OnnxErrorReason.DESCRIPTOR
    tables = TABLES
    migrations = MIGRATIONS
    descriptors = Path(open_inference_pb2.__file__).with_name("descriptors.binpb")

    def __init__(self) -> None:
        self._objects: ObjectStore

    def checks(self, settings: Settings, given: Given) -> list[Check]:
        """A check that there is what models need."""
        return [Check("ONNX packages", _look_at_packages)]

    @asynccontextmanager
    async def open(self, host: Host, given: Given) -> AsyncIterator[Opened]:
        """Serve models."""
        self._objects = host.objects
        models = Models(host)
        process_model = ProcessModel(host, models, given[OnnxSettings])
        lifetime = timedelta(days=given[OnnxSettings].model_upload_days)
        uploads = Uploads(host, models, lifetime)
        upkeep = UploadUpkeep(host, uploads, lifetime)
        engine = InferenceEngine(given[OnnxSettings].engine_limits(), lambda: int(host.clock().timestamp() * 1000))
        predictions = Predictions(host, models, engine)
        large = host.settings.inference_message_mib << 20
        async with in_background(upkeep.run(), "upkeep of uploads"), engine.running():
            yield Opened(
                services=[
                    Service("blobhub.v1.ModelService", ModelService(host, models, Intake(host, models))),
                    Service("blobhub.v1.ModelUploadService", ModelUploadService(host, uploads, upkeep)),
                    Service("blobhub.v1.InferenceService", InferenceService(host, predictions)),
                    ForeignService(full_name=SERVICE, handlers=OpenInferenceService(host, predictions), access=ACCESS),
                ],
                large_services=[
                    Service("blobhub.v1.InferenceService", InferenceService(host, predictions, large)),
                    Service(SERVICE, OpenInferenceService(host, predictions, large)),
                ],
                locators={"model_upload": partial(locate_upload, host)},
                collect=upload_store.collect,
                limits=_limits(host),
                offers={Infers: Questions(host, predictions)},
                on_serving=upkeep.on_serving,
                objects_in_use=upload_store.objects_in_use,
                uploads_open=upload_store.unended,
                operations={PROCESS_MODEL: process_model.perform, COMPLETE: UploadCompletion(host, process_model).perform},
            )

    async def validate(self, content: Content) -> list[Violation]:
        """There must be a model, with all that belongs to one. The type is open."""
        entries = {entry.name: entry for entry in await content.list()}
        if entries.keys() != set(ENTRIES):
            return [Violation("model", "a model is missing; PutModel or UploadModel stores one")]
        for entry in entries.values():
            try:
                await self._objects.size(entry.digest)
            except ObjectNotFound:
                raise ContentLost(entry.digest) from None
        return []


async def _look_at_packages() -> str:
    """Look for the packages of the extra."""
    try:
        require_extra()
    except ExtraMissing as error:
        raise StartWarning(f"{error}; without them, models can be downloaded, and none can be stored") from None
    return "numpy, onnx and onnxruntime are installed"


def _limits(host: Host) -> list[Limit]:
    """How large a model may be."""

    async def largest(tx: Transaction, blob_id: str) -> int:
        return await host.contents.largest(tx, blob_id, MODEL)

    return [
        Limit(
            name=limit.MODEL_BYTES, description="Bytes of a model, and of what it is sent as", default=1 << 30, held=largest
        ),
        Limit(
            name=limit.UPLOADS,
            description="Uploads in parts that have not ended",
            default=20,
            held=upload_store.count_unended,
        ),
    ]
