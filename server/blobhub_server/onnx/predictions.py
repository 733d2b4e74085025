"""Asking the models of revisions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.blobtypes.values import Entry
from blobhub_server.cache import Cache
from blobhub_server.errors import ContentLost
from blobhub_server.objects.contract import ObjectNotFound
from blobhub_server.onnx.errors import TYPE, ExtraNotInstalled
from blobhub_server.onnx.inference.batch import RequestAnswer
from blobhub_server.onnx.inference.engine import InferenceEngine, StoredModel
from blobhub_server.onnx.inference.signature import Signature
from blobhub_server.onnx.inference.tensor import Tensor
from blobhub_server.onnx.models import MODEL, Model, Models
from blobhub_server.onnx.runtime import ExtraMissing
from blobhub_server.turnstile import Party

_DRAFT = "draft"
_ROW_BYTES = 1_000
"""What a model costs to remember, about; its signature is shared."""


@dataclass(frozen=True, slots=True)
class Askable:
    """The model of a revision, and how it is asked."""

    model: Model
    stored: StoredModel

    @property
    def digest(self) -> str:
        """SHA-256 of the model."""
        return self.stored.digest


class Predictions:
    """Finds the models of revisions and asks them. What a frozen revision has is remembered."""

    def __init__(self, host: Host, models: Models, engine: InferenceEngine) -> None:
        self._host = host
        self._models = models
        self.engine = engine
        self._frozen: Cache[Askable] = Cache(max_count=1024, max_bytes=1024 * _ROW_BYTES)

    async def find(self, revision: RevisionView, reference: str, party: Party) -> Askable:
        """The model of a revision, which a caller has named by a reference. Raises WrongBlobType, NotFound, ContentLost."""
        revision.require_type(TYPE)
        if revision.phase == _DRAFT:
            return await self._read(revision, reference, party)

        async def make() -> tuple[Askable, int]:
            return await self._read(revision, reference, party), _ROW_BYTES

        return await self._frozen.obtain(revision.id, make)

    async def ask(
        self,
        model: Askable,
        inputs: Sequence[Tensor],
        outputs: Sequence[str],
        party: Party,
        max_answer_bytes: int | None = None,
    ) -> RequestAnswer:
        """The outputs of a model, which have so many bytes at most, unless that is the usual number.

        Raises InferenceError, ExtraNotInstalled, ContentLost, StorageUnavailable.
        """
        try:
            return await self.engine.infer(model.stored, inputs, outputs, party, max_answer_bytes)
        except ExtraMissing:
            raise ExtraNotInstalled from None

    async def _read(self, revision: RevisionView, reference: str, party: Party) -> Askable:
        model = await self._models.find(revision.id, reference, party)
        return Askable(model=model, stored=self._stored(revision, model.entries[MODEL], model))

    def _stored(self, revision: RevisionView, entry: Entry, model: Model) -> StoredModel:
        return StoredModel(
            organization_id=revision.organization_id,
            digest=entry.digest,
            size=entry.size,
            signature=Signature(inputs=model.signature.inputs, outputs=model.signature.outputs),
            read=lambda: self._read_bytes(entry.digest),
        )

    async def _read_bytes(self, digest: str) -> AsyncIterator[bytes]:
        """The bytes of a model. Raises ContentLost, StorageUnavailable."""
        try:
            async for chunk in self._host.objects.read(digest):
                yield chunk
        except ObjectNotFound:  # The entry exists, so the bytes were lost.
            raise ContentLost(digest) from None
