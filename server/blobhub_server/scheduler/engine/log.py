"""Appends to the logs of firings: a line when a schedule fires, and one when the execution that it started has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from blobhub_server.blobtypes.capabilities import InvocationResult
from blobhub_server.db.engine import Transaction
from blobhub_server.db.notify import Doorbell
from blobhub_server.scheduler.rules.firing import Firing
from blobhub_server.scheduler.store import firing_log as store
from blobhub_server.scheduler.store.firing_log import FiringEnd, StartedFiring


def topic(blob_id: str) -> str:
    """The doorbell that is rung when a blob's log of firings has grown."""
    return f"firings {blob_id}"


class FiringLog:
    """Appends to the logs of firings. Both take numbers, so they come last in a transaction."""

    def __init__(self, bell: Doorbell) -> None:
        self._bell = bell

    async def append(self, tx: Transaction, new: Sequence[Firing]) -> list[Firing]:
        """Store new firings; return them with their numbers. One whose execution has ended at once takes two."""
        counts = Counter[str]()
        for firing in new:
            counts[firing.blob_id] += 1 + (firing.end_time is not None)
        numbers = await store.take_numbers(tx, counts)
        numbered = []
        for firing in new:
            sequence = numbers[firing.blob_id]
            ended = firing.end_time is not None
            numbered.append(replace(firing, sequence=sequence, end_sequence=sequence + 1 if ended else None))
            numbers[firing.blob_id] = sequence + 1 + ended
        await store.insert(tx, numbered)
        await self._ring(tx, counts)
        return numbered

    async def end(self, tx: Transaction, ended: Sequence[InvocationResult]) -> list[StartedFiring]:
        """Keep how executions have ended; return the firings that had started them. Others are passed over."""
        results = {result.cause: result for result in ended}
        found = await store.lock_started(tx, results.keys())
        counts = Counter(firing.blob_id for firing in found)
        numbers = await store.take_numbers(tx, counts)
        ends = []
        for firing in found:
            result = results[firing.id]
            assert result.end_time is not None, "it has ended"
            ends.append(
                FiringEnd(
                    id=firing.id,
                    execution_state=result.state,
                    end_time=result.end_time,
                    end_sequence=numbers[firing.blob_id],
                )
            )
            numbers[firing.blob_id] += 1
        await store.end(tx, ends)
        await self._ring(tx, counts)
        return found

    async def _ring(self, tx: Transaction, counts: Counter[str]) -> None:
        if counts:
            await self._bell.ring_after_commit(tx, [topic(blob_id) for blob_id in sorted(counts)])
