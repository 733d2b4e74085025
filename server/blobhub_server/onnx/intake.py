"""How models come in: bytes are stored under their digest, and an operation makes them the model of a draft."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from blobhub.v1 import operation_pb2

from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import InvalidValue, LimitExceeded, Overloaded
from blobhub_server.objects.contract import DigestMismatch, ObjectTooLarge
from blobhub_server.onnx.errors import TYPE, ExtraNotInstalled
from blobhub_server.onnx.limit import MODEL_BYTES
from blobhub_server.onnx.models import Models
from blobhub_server.onnx.runtime import ExtraMissing, require_extra

PROCESS_MODEL = "onnx.process_model"
"""The kind of the operation."""

MAX_UPLOADS, MAX_UPLOADS_PER_CALLER = 32, 8
"""How many models are taken in as streams at once, and how many of one caller: each has two blocks and a message in memory.
They are no more than the room has places for streams (`rpc/room.py`), so none that has begun waits for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """Stored bytes that are to become the model of a draft: of `model.onnx`, or of an archive with it.

    `etag` and `create_only` are those of the call; they are looked at again when the model is processed.
    """

    digest: str
    size: int
    archive: bool
    etag: str = ""
    create_only: bool = False

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Incoming:
        """What an operation was begun with."""
        return cls(**data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What a call says of the bytes that it brings; 0 and an empty text where it says nothing."""

    size: int = 0
    sha256: str = ""


class Intake:
    """Takes in models."""

    def __init__(self, host: Host, models: Models) -> None:
        self._host = host
        self._models = models
        self._under_way: Counter[str] = Counter()
        try:
            require_extra()
            self._has_extra = True
        except ExtraMissing:
            self._has_extra = False

    async def require_takes(self, revision: RevisionView, reference: str, *, etag: str, create_only: bool) -> int:
        """Refuse a model that could not be written as things are now; how many bytes one may have.

        Raises WrongBlobType, ExtraNotInstalled, WrongPhase, StaleEtag, NotFound, AlreadyExists.
        """
        revision.require_type(TYPE)
        if not self._has_extra:
            raise ExtraNotInstalled
        async with self._host.db.read() as tx:
            await self._models.require_writable(tx, revision, reference, etag=etag, create_only=create_only)
            return await self.max_bytes(tx, revision)

    async def max_bytes(self, tx: Transaction, revision: RevisionView) -> int:
        """How many bytes a model of a blob may have, and what it is sent as."""
        place = {"organization_id": revision.organization_id, "blob_id": revision.blob_id}
        return await self._host.limits.value(tx, MODEL_BYTES, **place)

    async def store(
        self, revision: RevisionView, chunks: AsyncIterator[bytes], announced: Announced, max_bytes: int
    ) -> tuple[str, int]:
        """Store bytes as they come; return their digest and how many there are.

        Raises LimitExceeded as soon as there are too many, and InvalidValue for others than were announced.
        """
        if announced.size > max_bytes:
            raise LimitExceeded(MODEL_BYTES, max_bytes, revision.blob_id)
        async with self._host.objects.write(max_bytes=max_bytes) as writer:
            try:
                async for chunk in chunks:
                    await writer.append(chunk)
                    if announced.size and writer.size > announced.size:
                        raise InvalidValue("size", f"{announced.size} bytes were announced, and more came")
                _require_announced(writer.size, announced)
                return await writer.commit(announced.sha256 or None), writer.size
            except ObjectTooLarge:
                raise LimitExceeded(MODEL_BYTES, max_bytes, revision.blob_id) from None
            except DigestMismatch as error:
                raise InvalidValue("sha256", f"the bytes that came have another one: {error.actual}") from None

    async def begin(
        self, tx: Transaction, revision: RevisionView, incoming: Incoming, actor_id: str
    ) -> operation_pb2.Operation:
        """Begin to process stored bytes, as part of a call's transaction. Raises what `Operations.begin` raises."""
        return await self._host.operations.begin(
            tx,
            kind=PROCESS_MODEL,
            revision=revision,
            actor_id=actor_id,
            data=asdict(incoming),
            digest=incoming.digest,
        )

    @contextmanager
    def one_more(self, caller: str) -> Iterator[None]:
        """Count an upload while it is under way. Raises Overloaded."""
        if self._under_way.total() >= MAX_UPLOADS or self._under_way[caller] >= MAX_UPLOADS_PER_CALLER:
            raise Overloaded
        self._under_way[caller] += 1
        try:
            yield
        finally:
            self._under_way[caller] -= 1
            self._under_way += Counter()  # Without those that have none.


def _require_announced(size: int, announced: Announced) -> None:
    """Raise InvalidValue for fewer bytes than were announced, or none."""
    if announced.size and size != announced.size:
        raise InvalidValue("size", f"{announced.size} bytes were announced, and {size} came")
    if not size:
        raise InvalidValue("chunk", "no bytes came")
