"""Appends to the logs of firings: a line when a schedule fires, and one when the execution that it started has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from blobhub_server.blobtypes.capabilities import InvocationResult
from blobhub_server.db.engine import Transaction
from blobhub_server.db.notify import Doorbell
from blobhub_server.scheduler.engine.tails import Tails, topic
from blobhub_server.scheduler.rules.firing import Firing
from blobhub_server.scheduler.store import firing_log as store
from blobhub_server.scheduler.store.firing_log import FiringEnd, StartedFiring


class FiringLog:
    """Appends to the logs of firings, and to the tails of those that are watched here.

    Both take numbers, so they come last in a transaction.
    """

    def __init__(self, bell: Doorbell, tails: Tails) -> None:
        self._bell = bell
        self._tails = tails

    async def append(self, tx: Transaction, new: Sequence[Firing]) -> list[Firing]:
        """Number new firings and store them; return them. One whose execution has ended at once takes two numbers."""
        counts = Counter[str]()
        for firing in new:
            counts[firing.blob_id] += 1 + (firing.end_time is not None)
        numbers = await store.take_numbers(tx, counts)
        for firing in new:
            sequence = firing.sequence = numbers[firing.blob_id]
            ended = firing.end_time is not None
            firing.end_sequence = sequence + 1 if ended else None
            numbers[firing.blob_id] = sequence + 1 + ended
        await store.insert(tx, new)
        tx.after_commit(lambda: self._tails.add(line for firing in new for line in _lines(firing)))
        await self._ring(tx, counts)
        return [*new]

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
        watched = [firing.id for firing in found if self._tails.is_watched(firing.blob_id)]
        if watched:
            lines = [store.as_ended(firing) for firing in await store.get_some(tx, watched)]
            tx.after_commit(lambda: self._tails.add(sorted(lines, key=lambda line: line.sequence)))
        await self._ring(tx, counts)
        return found

    async def _ring(self, tx: Transaction, counts: Counter[str]) -> None:
        if counts:
            await self._bell.ring_after_commit(tx, [topic(blob_id) for blob_id in sorted(counts)])


def _lines(firing: Firing) -> Iterator[Firing]:
    """The lines of the log that a new firing is: one, and another where its execution has ended at once."""
    yield store.as_fired(firing)
    if firing.end_sequence is not None:
        yield store.as_ended(firing)
