"""Group commit: many units of work share one transaction.

A batch is whatever queued up during the last commit. An idle committer starts at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import StorageUnavailable

Unit = TypeVar("Unit")
Result = TypeVar("Result")

MAX_BATCH = 256


class GroupCommitter(Generic[Unit, Result]):
    """Makes units durable in the order they were submitted.

    `apply` does a batch of units in a transaction and returns one result for each. When a batch fails, its units are
    committed one by one, so that a bad unit fails alone. When it fails because the database cannot be used, no unit is to
    blame and the batch may have been committed, so nothing is tried again.
    """

    def __init__(self, db: Database, apply: Callable[[Transaction, Sequence[Unit]], Awaitable[Sequence[Result]]]) -> None:
        self._db = db
        self._apply = apply
        self._queue: deque[tuple[Unit, asyncio.Future[Result]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def submit(self, unit: Unit) -> Result:
        """Return the unit's result once it is durable; raise what its part of the transaction raised.

        Cancelling the caller does not withdraw the unit.
        """
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append((unit, done))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="group commit")
        return await done

    async def close(self) -> None:
        """Finish what was submitted."""
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        try:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
                if not await self._commit(batch):
                    for item in batch:
                        await self._commit([item], last_try=True)
        finally:
            self._task = None

    async def _commit(self, batch: Sequence[tuple[Unit, asyncio.Future[Result]]], *, last_try: bool = False) -> bool:
        """Commit a batch and tell how that ended; return False, and tell nothing, when its units are to be tried alone."""

        async def work(tx: Transaction) -> Sequence[Result]:
            results = await self._apply(tx, [unit for unit, _ in batch])
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for {len(batch)} units")
            return results

        try:
            results = await self._db.transact(work)
        except Exception as error:
            if not (last_try or len(batch) == 1 or isinstance(error, StorageUnavailable)):
                return False
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
            return True
        for (_, done), result in zip(batch, results, strict=True):
            if not done.done():
                done.set_result(result)
        return True
