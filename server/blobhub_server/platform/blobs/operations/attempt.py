"""One run of an operation on this server, from the claim to its end.

Every write compares the fence of the claim. So a run that has lost its operation, because it was cancelled, its blob
deleted, or this server slept through its lease, writes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import structlog
from google.protobuf.any_pb2 import Any

from blobhub_server.blobtypes.access import Place, Role
from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.operations import Finish, Perform, Work
from blobhub_server.db.engine import Transaction
from blobhub_server.db.trouble import retry_seconds
from blobhub_server.errors import BlobHubError, Overloaded, PermissionDenied, StorageUnavailable, is_panic
from blobhub_server.platform.blobs.operations.message import MILLION
from blobhub_server.platform.blobs.operations.operations import topic
from blobhub_server.platform.rules.operation import Operation
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import operation_claim as store
from blobhub_server.rpc.errors import to_blobhub_error, to_status

log = structlog.get_logger()

Result = TypeVar("Result")

REPORT_SECONDS = 0.25
"""A report of the same stage that comes sooner after the one before is left out."""
MAX_STAGE_LENGTH = 64


class Attempt:
    """One run. `cancel` stops it, and it then leaves the operation as it is."""

    def __init__(self, host: Host, operation: Operation, perform: Perform) -> None:
        self.operation = operation
        self._host = host
        self._perform = perform
        self._stopped = False
        self._reported = ("", 0.0)
        self.task = asyncio.create_task(self._run(), name=f"operation {operation.id}")

    def cancel(self) -> None:
        """Stop the performer; `task` then ends soon."""
        if not self._stopped:
            log.info("operation_stopped", id=self.operation.id, kind=self.operation.kind)
        self._stopped = True
        self.task.cancel()

    async def _run(self) -> None:
        try:
            finish = await self._outlast(lambda: self._perform(self._work()))
            await self._outlast(lambda: self._host.db.transact(partial(self._succeed, finish=finish)))
        except BaseException as error:
            if self._stopped or not (isinstance(error, Exception | asyncio.CancelledError) or is_panic(error)):
                raise
            told = to_blobhub_error(error, f"operation {self.operation.kind}")
            await self._outlast(lambda: self._host.db.transact(partial(self._fail, error=told)))

    def _work(self) -> Work:
        operation = self.operation
        return Work(
            operation_id=operation.id,
            kind=operation.kind,
            organization_id=operation.organization_id,
            blob_id=operation.blob_id,
            revision_id=operation.revision_id,
            actor_id=operation.actor_id,
            data=operation.data,
            digest=operation.digest or "",
            on_report=self._report,
        )

    async def _outlast(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """What `work` answers; tried again for as long as the ground is in trouble."""
        attempt = 0
        while True:
            try:
                return await work()
            except BlobHubError as error:
                if not _is_trouble(error):
                    raise
                if isinstance(error, StorageUnavailable):
                    self._host.db.trouble.report(error)
                log.debug("operation_waits", id=self.operation.id, reason=error.reason)
            await asyncio.sleep(retry_seconds(attempt))
            attempt += 1

    async def _report(self, stage: str, done: float | None) -> None:
        """Keep how far the work has come. Stops the run when the operation is not its own any more."""
        before, at = self._reported
        if stage == before and time.monotonic() - at < REPORT_SECONDS:
            return
        self._reported = (stage, time.monotonic())
        millionths = None if done is None else round(min(max(done, 0.0), 1.0) * MILLION)
        try:
            async with self._host.db.write() as tx:
                kept = await store.report(tx, self.operation, stage[:MAX_STAGE_LENGTH], millionths)
                await self._tell(tx)
        except StorageUnavailable as error:
            self._host.db.trouble.report(error)
            return
        if not kept:
            self.cancel()
            await asyncio.sleep(0)  # where the cancellation is raised

    async def _succeed(self, tx: Transaction, *, finish: Finish) -> None:
        # The order of locks is that of calls: the blob, then what belongs to it. Whoever discards the revision is one.
        blob = await blob_store.get(tx, self.operation.blob_id, lock=True)
        if blob is None or not await store.lock(tx, self.operation):
            log.info("operation_lost", id=self.operation.id, kind=self.operation.kind)
            return
        place = Place(organization_id=blob.organization_id, blob_id=blob.id, public=blob.public)
        if await self._host.actors.role(tx, self.operation.actor_id, place) < Role.WRITE:
            raise PermissionDenied("who began this may not write to the blob any more", role="write")
        response = Any()
        response.Pack(await finish(tx))
        await store.succeed(tx, self.operation, response.SerializeToString(), self._host.clock())
        await self._tell(tx)

    async def _fail(self, tx: Transaction, *, error: BlobHubError) -> None:
        await store.fail(tx, self.operation, to_status(error).SerializeToString(), self._host.clock())
        await self._tell(tx)

    async def _tell(self, tx: Transaction) -> None:
        await self._host.bell.ring_after_commit(tx, [topic(self.operation.id)])


def _is_trouble(error: BlobHubError) -> bool:
    """Whether an error is the ground's, and says nothing of the operation."""
    return isinstance(error, StorageUnavailable | Overloaded) or error.code == "UNAVAILABLE"
