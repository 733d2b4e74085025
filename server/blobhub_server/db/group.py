"""Group commit: many units of work share one transaction.

A batch is what queued up during the last commit, as far as it is not too much for one transaction. Whoever brings much does
not crowd others out: a batch takes one unit of each party, then another one of each, and so on; where parties have parties
of their own, these take turns in the same way. An idle committer starts at
once. When the storage cannot be used, this is where work waits for it: one loop tries again for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from blobhub_server.background import Rounds
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import StorageUnavailable

Unit = TypeVar("Unit")
Result = TypeVar("Result")

MAX_BATCH = 256
"""How many units a batch has at most."""
MAX_WEIGHT = 600
"""What a batch weighs at most, but for its last unit. Others wait for the transaction, so it has to be short."""


class GroupCommitter(Generic[Unit, Result]):
    """Makes units durable, those of one party in the order they were submitted.

    `parties` say whose a unit is, first by the larger group, and `weight` how much there is to write for it.

    `apply` does a batch of units in a transaction and returns one result for each. When a batch fails, its units are
    committed one by one, so that a bad unit fails alone.

    When it fails because the storage cannot be used, no unit is to blame, and the batch may have been committed all the
    same. Units that are `kept` are applied again, in their order, until the storage takes them; `apply` has to find out
    whether they were committed before. All others raise StorageUnavailable after one attempt, or without one while the
    storage is known to be down.
    """

    def __init__(
        self,
        db: Database,
        apply: Callable[[Transaction, Sequence[Unit]], Awaitable[Sequence[Result]]],
        *,
        kept: Callable[[Unit], bool] = lambda _: False,
        parties: Sequence[Callable[[Unit], Hashable]] = (lambda _: None,),
        weight: Callable[[Unit], int] = lambda _: 1,
    ) -> None:
        self._db = db
        self._apply = apply
        self._kept = kept
        self._weight = weight
        self._queue: Rounds[tuple[Unit, asyncio.Future[Result]]] = Rounds(*map(_of_unit, parties))
        self._task: asyncio.Task[None] | None = None
        self._trouble: StorageUnavailable | None = None  # while kept units wait
        self._pausing: asyncio.Task[None] | None = None
        self._closing = False

    async def submit(self, unit: Unit) -> Result:
        """Return the unit's result once it is durable; raise what its part of the transaction raised.

        Cancelling the caller does not withdraw the unit, unless it is waiting for the storage.
        """
        if self._trouble is not None and self._db.trouble.down and not self._kept(unit):
            raise type(self._trouble) from self._trouble.__cause__
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append((unit, done))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="group commit")
        return await done

    async def close(self) -> None:
        """Finish what was submitted. Where the storage cannot be used it raises StorageUnavailable."""
        self._closing = True
        if self._pausing is not None:
            self._pausing.cancel()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        attempt = 0
        try:
            while self._queue:
                batch = self._next_batch()
                try:
                    await self._commit(batch)
                    attempt = 0
                except StorageUnavailable as error:
                    self._db.trouble.report(error)
                    if self._keep(batch, error):
                        await self._pause(error, attempt)
                        attempt += 1
        finally:
            self._task = None

    def _next_batch(self) -> list[tuple[Unit, asyncio.Future[Result]]]:
        batch: list[tuple[Unit, asyncio.Future[Result]]] = []
        weight = 0
        while self._queue and len(batch) < MAX_BATCH and weight < MAX_WEIGHT:
            batch.append(self._queue.popleft())
            weight += self._weight(batch[-1][0])
        return batch

    async def _commit(self, batch: Sequence[tuple[Unit, asyncio.Future[Result]]]) -> None:
        """Commit a batch, or its units one by one. Raises StorageUnavailable; units with a done future are settled."""
        try:
            await self._try(batch)
        except StorageUnavailable:
            raise
        except Exception as error:
            if len(batch) > 1:
                for item in batch:
                    await self._commit([item])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)

    async def _try(self, batch: Sequence[tuple[Unit, asyncio.Future[Result]]]) -> None:
        """Commit a batch in one transaction, and tell the results."""

        async def work(tx: Transaction) -> Sequence[Result]:
            results = await self._apply(tx, [unit for unit, _ in batch])
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for {len(batch)} units")
            return results

        results = await self._db.transact(work)
        for (_, done), result in zip(batch, results, strict=True):
            if not done.done():
                done.set_result(result)

    def _keep(self, batch: Sequence[tuple[Unit, asyncio.Future[Result]]], error: StorageUnavailable) -> bool:
        """Put what is kept of a batch back into the queue; fail all else that waits. Return whether anything is kept."""
        waiting = [*batch, *self._queue.clear()]
        for unit, done in waiting:
            if done.done():
                continue
            if self._kept(unit) and not self._closing:
                self._queue.append((unit, done))
            else:
                done.set_exception(error)
        return bool(self._queue)

    async def _pause(self, error: StorageUnavailable, attempt: int) -> None:
        """Wait before the next attempt; a committer that is closed makes it at once."""
        self._trouble = error
        self._pausing = asyncio.create_task(self._db.trouble.pause(attempt), name="pause of the group commit")
        await asyncio.wait({self._pausing})
        self._trouble = self._pausing = None


def _of_unit(party: Callable[[Unit], Hashable]) -> Callable[[tuple[Unit, asyncio.Future[Result]]], Hashable]:
    """Whose an item of the queue is."""
    return lambda item: party(item[0])
