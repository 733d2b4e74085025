"""Events of blobs, appended in the transaction of the change that they report."""

from __future__ import annotations

from typing import Any

from blobhub.v1 import blob_event_pb2 as pb

from blobhub_server.clock import Clock
from blobhub_server.db.engine import Transaction
from blobhub_server.db.notify import Doorbell
from blobhub_server.ids import Ids
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import blob_event as store
from blobhub_server.platform.store.blob_event import BlobEventLine
from blobhub_server.rpc.wire import to_timestamp


class BlobEvents:
    """Appends to the logs of blobs."""

    def __init__(self, bell: Doorbell, clock: Clock, ids: Ids) -> None:
        self._bell = bell
        self._clock = clock
        self._ids = ids

    async def append(self, tx: Transaction, blob_id: str, *, shows_draft: bool = False, **payload: Any) -> None:
        """Append an event, which may tell of a draft. `payload` is one of the payloads of BlobEvent, by its name."""
        (type_,) = payload
        sequence = await blob_store.take_number(tx, blob_id)
        event = pb.BlobEvent(
            id=self._ids(),
            blob_id=blob_id,
            sequence=sequence,
            create_time=to_timestamp(self._clock()),
            type=type_,
            **payload,
        )
        line = BlobEventLine(
            blob_id=blob_id, sequence=sequence, type=type_, shows_draft=shows_draft, event=event.SerializeToString()
        )
        await store.append(tx, line)
        await self._bell.ring_after_commit(tx, [topic(blob_id)])


def topic(blob_id: str) -> str:
    """The doorbell that is rung when a blob's log has grown."""
    return f"blob {blob_id}"
