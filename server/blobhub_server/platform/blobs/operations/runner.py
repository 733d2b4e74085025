"""Runs operations, so many at once on a server, in turns by organization.

It never polls. It is rung when an operation is begun or cancelled, here or on another server, and when a run has ended. It
sleeps until the first lease of another server may run out, and looks once a minute in case that a ring was not heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import structlog

from blobhub_server.background import in_background
from blobhub_server.blobtypes.contract import DELETIONS, Host
from blobhub_server.blobtypes.operations import Perform
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import StorageUnavailable
from blobhub_server.platform.blobs.operations.attempt import Attempt
from blobhub_server.platform.blobs.operations.operations import WORK, topic
from blobhub_server.platform.blobs.operations.retention import Retention
from blobhub_server.platform.rules.operation import MAX_ATTEMPTS, Operation, OperationPoisoned
from blobhub_server.platform.store import operation_claim as store
from blobhub_server.platform.store.operation_claim import Claimed, Waiting
from blobhub_server.rpc.errors import to_status

log = structlog.get_logger()

LOOK_SECONDS = 60.0
"""After so long it looks again without being rung."""
LOCKED_SECONDS = 1.0
"""How soon it looks again when what waits was locked, by another server that takes it, say."""
STOP_SECONDS = 5.0
"""How long runs that were cancelled may take to end at a shutdown; their operations are given back all the same."""
ORGANIZATIONS = 64
"""In how many organizations it looks for the next operation at once; it goes round."""
_PARTY = ("", "operations")
"""Who this is where it takes turns."""


class Runner:
    """Runs operations, in the background of a server."""

    def __init__(self, host: Host, types: BlobTypes) -> None:
        self._host = host
        self._types = types
        self._at_once = host.settings.operations_at_once
        self._lease = timedelta(seconds=host.settings.operation_lease_seconds)
        self._retention = Retention(host.db, host.clock)
        self._running: dict[str, Attempt] = {}
        self._last = ""  # the organization whose turn was last

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run operations until left; what runs then is given back. The blob types are open."""
        try:
            async with (
                in_background(self._run_forever(), "operations"),
                in_background(self._renew_forever(), "operations' leases"),
                in_background(self._hear_deletions(), "operations of what is deleted"),
                in_background(self._retention.remove_forever(), "old operations"),
            ):
                yield
        finally:
            await self._give_back()

    async def _run_forever(self) -> None:
        performers = self._types.operations()
        seconds, attempt, expired = 0.0, 0, not self._host.db.exclusive
        async with self._host.bell.listen(WORK) as listener:
            while True:
                try:
                    if not expired:  # Nobody else can have this database open, so whoever had claims is gone.
                        async with self._host.db.write() as tx:
                            await store.expire_all(tx)
                        expired = True
                    await self._stop_lost()
                    seconds = await self._take(performers)
                    attempt = 0
                except StorageUnavailable as error:
                    self._host.db.trouble.report(error)
                    await self._host.db.trouble.pause(attempt)
                    attempt, seconds = attempt + 1, 0.0
                except Exception:
                    log.exception("operations_not_run")
                    await self._host.db.trouble.pause(attempt)
                    attempt, seconds = attempt + 1, LOCKED_SECONDS
                await listener.wait(seconds)

    async def _stop_lost(self) -> None:
        """Stop what is not this server's any more, and give back what it has claimed and does not run.

        There is such a claim where a commit was made and could not be answered.
        """
        before = dict(self._running)
        async with self._host.db.read() as tx:
            claimed = await store.list_claimed(tx, self._host.server_id)
        self._stop_all_but(before, claimed)
        for item in claimed:
            if item.id not in self._running and item.id not in before:
                async with self._host.db.write() as tx:
                    await store.release(tx, item, counts=True)

    @staticmethod
    def _stop_all_but(running: Mapping[str, Attempt], claimed: Sequence[Claimed]) -> None:
        """Stop those of some runs whose claims do not hold any more."""
        fences = {item.id: item.fence for item in claimed}
        for id_, attempt in running.items():
            if fences.get(id_) != attempt.operation.fence:
                attempt.cancel()

    async def _take(self, performers: Mapping[str, Perform]) -> float:
        """Take what waits, for as long as there is room; return after how many seconds to look again."""
        if not performers:
            return LOOK_SECONDS
        kinds, missed = sorted(performers), False
        while len(self._running) < self._at_once:
            chosen = self._choose(await self._list_waiting(kinds))
            if not chosen:
                break
            operation = await self._claim_first(chosen)
            if operation is None:
                missed = True
                break
            if operation.attempts <= MAX_ATTEMPTS:
                self._begin(operation, performers[operation.kind])
        return LOCKED_SECONDS if missed else await self._seconds_to_takeover()

    async def _list_waiting(self, kinds: Sequence[str]) -> list[Waiting]:
        """The organizations in which something waits, those first whose turn comes after the last one's; so many at most."""
        async with self._host.db.scan(_PARTY, patient=True) as tx:
            list_ = partial(store.list_waiting, tx, self._host.server_id, kinds)
            waiting = await list_(after=self._last, max_organizations=ORGANIZATIONS)
            left = ORGANIZATIONS - len(waiting)
            if left and self._last:
                known = {item.organization_id for item in waiting}
                begin = await list_(after="", max_organizations=left)
                waiting += [item for item in begin if item.organization_id not in known]
        return waiting

    def _choose(self, waiting: Sequence[Waiting]) -> list[str]:
        """The operations to take one of, by organization: those of which fewest run, then those whose turn comes first.

        First come those under which a server went down. Of these one runs at a time, so that each of them is found out and
        none is counted for another.
        """
        waiting = sorted(waiting, key=lambda item: item.running)
        suspected = any(attempt.operation.attempts > 1 for attempt in self._running.values())
        suspects = [] if suspected else [item.suspect_id for item in waiting if item.suspect_id]
        return suspects + [item.fresh_id for item in waiting if item.fresh_id]

    async def _claim_first(self, operation_ids: Sequence[str]) -> Operation | None:
        """Take the first of some operations that nobody else takes; None where all are taken.

        One under which too many servers went down is failed with that.
        """
        for operation_id in operation_ids:
            operation = await self._host.db.transact(partial(self._claim, operation_id=operation_id))
            if operation is not None:
                return operation
        return None

    async def _claim(self, tx: Transaction, *, operation_id: str) -> Operation | None:
        now = self._host.clock()
        operation = await store.claim(tx, operation_id, self._host.server_id, self._lease, now)
        if operation is not None:
            if operation.attempts > MAX_ATTEMPTS:
                log.error("operation_poisoned", id=operation.id, kind=operation.kind, attempts=MAX_ATTEMPTS)
                await store.fail(tx, operation, to_status(OperationPoisoned(MAX_ATTEMPTS)).SerializeToString(), now)
            await self._host.bell.ring_after_commit(tx, [topic(operation_id)])
        return operation

    def _begin(self, operation: Operation, perform: Perform) -> None:
        self._last = operation.organization_id
        attempt = Attempt(self._host, operation, perform)
        self._running[operation.id] = attempt
        attempt.task.add_done_callback(partial(self._end, attempt))

    def _end(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        """Make room for the next one."""
        if self._running.get(attempt.operation.id) is attempt:
            del self._running[attempt.operation.id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("operation_not_ended", id=attempt.operation.id, exc_info=error)
        self._host.bell.ring(WORK)

    async def _seconds_to_takeover(self) -> float:
        """After how long a lease of another server may have run out; a minute at most."""
        if self._host.db.exclusive:
            return LOOK_SECONDS
        async with self._host.db.read() as tx:
            seconds = await store.seconds_to_takeover(tx, self._host.server_id)
        return LOOK_SECONDS if seconds is None else min(max(seconds, LOCKED_SECONDS), LOOK_SECONDS)

    async def _renew_forever(self) -> None:
        """Keep the leases of what runs, until cancelled."""
        seconds = self._lease.total_seconds()
        while not self._host.db.exclusive:
            await asyncio.sleep(seconds / 6)
            if not self._running:
                continue
            try:
                async with asyncio.timeout(seconds / 3), self._host.db.reserved() as tx:
                    before = dict(self._running)
                    self._stop_all_but(before, await store.renew(tx, self._host.server_id, self._lease))
            except (StorageUnavailable, TimeoutError) as error:
                self._host.db.trouble.report(error)
            except Exception:
                log.exception("leases_of_operations_not_renewed")

    async def _hear_deletions(self) -> None:
        """Look whether what runs is still there whenever something was deleted, until cancelled."""
        async with self._host.bell.listen(DELETIONS) as listener:
            while True:
                if await listener.wait(LOOK_SECONDS):
                    self._host.bell.ring(WORK)

    async def _give_back(self) -> None:
        """Stop what runs, and give its operations back. What cannot be given back is taken over in the end."""
        attempts = list(self._running.values())
        for attempt in attempts:
            attempt.cancel()
        if attempts:
            _, unended = await asyncio.wait([attempt.task for attempt in attempts], timeout=STOP_SECONDS)
            if unended:
                log.warning("operations_not_stopped", tasks=[task.get_name() for task in unended])
        for attempt in attempts:
            try:
                async with self._host.db.write() as tx:
                    await store.release(tx, attempt.operation, counts=False)
                    await self._host.bell.ring_after_commit(tx, [WORK, topic(attempt.operation.id)])
            except StorageUnavailable:
                log.warning("operation_not_given_back", id=attempt.operation.id)
