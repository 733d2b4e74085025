"""The embedded runtime: starts and recovers executions, and runs those that this server owns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager

import structlog

from blobhub_server.blobtypes.contract import DELETIONS, Host
from blobhub_server.db.engine import Transaction
from blobhub_server.db.notify import Listener
from blobhub_server.errors import BlobHubError, PermissionDenied, StorageUnavailable
from blobhub_server.workflow.components.contract import Services
from blobhub_server.workflow.definitions.finder import Definitions
from blobhub_server.workflow.log.log import EventLog
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.runtime.contract import Children, EndListener, PreparedStart, Runtime, Start, StartWork
from blobhub_server.workflow.runtime.embedded.journal import Journal
from blobhub_server.workflow.runtime.embedded.ownership import Ownership
from blobhub_server.workflow.runtime.embedded.recovery import Recovery
from blobhub_server.workflow.runtime.embedded.runner_context import RunnerContext
from blobhub_server.workflow.runtime.embedded.runners import Runners
from blobhub_server.workflow.runtime.embedded.start import Starts
from blobhub_server.workflow.runtime.embedded.steady import SteadyClock
from blobhub_server.workflow.runtime.embedded.unit import Unit
from blobhub_server.workflow.runtime.embedded.waking import Waking
from blobhub_server.workflow.runtime.performer import Performer
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import message as message_store

log = structlog.get_logger()

RETRY_SECONDS = 1.0


class EmbeddedRuntime:
    """Runs executions in this process. See `contract.Runtime` for what the services ask of it."""

    def __init__(
        self,
        host: Host,
        definitions: Definitions,
        services: Services,
        log: EventLog,
        lease_seconds: float,
        make_children: Callable[[Runtime], Children],
    ) -> None:
        self._host = host
        self._lease_seconds = lease_seconds
        self._end_listeners: list[EndListener] = []
        self._journal = Journal(host, log, self._on_doubt, self._tell_end)
        self._ownership = Ownership(host, lease_seconds, on_lapse=log.drop_tails)
        log.trust_tails_while(lambda: self._ownership.holds_lease)
        now = SteadyClock(host.clock, time.monotonic, 0.0).now
        performer = Performer(services, make_children(self))
        around = RunnerContext(db=host.db, journal=self._journal, clock=host.clock, performer=performer, server_now=now)
        self._runners = Runners(around, self._on_failure, self._on_park)
        self._starts = Starts(host, definitions, self._journal, self._runners, self._ownership.server_id)
        self._recovery = Recovery(
            host, definitions, self._ownership, self._runners, lease_seconds, self._on_adoption, server_now=now
        )
        self._waking = Waking(host, self._runners, self._recovery.load_runner, now, lease_seconds)
        self._going_on: dict[str, asyncio.Task[None]] = {}
        self._in_doubt: set[asyncio.Task[None]] = set()
        self._serving = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run executions until left. What was left from before is recovered from `on_serving` on."""
        await self._ownership.take_lease()
        bell = self._host.bell
        async with bell.listen(self._ownership.server_id) as listener, bell.listen(DELETIONS) as deletions:
            tasks = [
                asyncio.create_task(self._cut_off_forever(deletions)),
                asyncio.create_task(self._ownership.renew_forever()),
                asyncio.create_task(self._recover_forever()),
                asyncio.create_task(self._deliver_forever(listener)),
                asyncio.create_task(self._wake_forever()),
            ]
            try:
                yield
            finally:
                self._runners.leave()
                tasks += [*self._going_on.values(), *self._in_doubt]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._journal.close()
                await self._ownership.end_lease()

    def on_serving(self) -> None:
        """Begin to recover. The server answers calls by now: what is recovered may take long, or end the server."""
        self._serving.set()

    async def start(self, start: Start, work: StartWork | None = None) -> Execution:
        return await self._starts.submit(start, work)

    async def prepare(self, start: Start) -> PreparedStart:
        return await self._starts.prepare(start)

    async def join(self, tx: Transaction, prepared: PreparedStart, work: StartWork | None = None) -> Execution:
        return await self._starts.join(tx, prepared, work)

    async def join_all(self, tx: Transaction, prepared: Sequence[PreparedStart]) -> Sequence[Execution | BlobHubError]:
        return await self._starts.join_all(tx, prepared)

    def deferred(self) -> AbstractContextManager[None]:
        return self._starts.deferred()

    async def get_ended(self, execution_id: str) -> Execution:
        known = self._runners.find(execution_id)
        if known is not None and known.ended:
            return known
        async with self._host.db.read() as tx:
            execution = await execution_store.get(tx, execution_id)
        if execution is None:
            raise PermissionDenied
        return execution

    def listen(self, on_end: EndListener) -> None:
        self._end_listeners.append(on_end)

    async def _recover_forever(self) -> None:
        await self._serving.wait()
        await self._recovery.recover_forever()

    async def _wake_forever(self) -> None:
        await self._serving.wait()
        await self._waking.wake_forever()

    def _on_park(self, execution: Execution) -> None:
        self._waking.on_park(execution)

    def _on_adoption(self) -> None:
        """Wake those of what was taken over for which the time, or a message, has come."""
        self._waking.look()
        self._host.bell.ring(self._ownership.server_id)

    async def _deliver_forever(self, listener: Listener) -> None:
        """Deliver messages whenever this server is rung, and once a lease, until cancelled."""
        while True:
            await listener.wait(self._lease_seconds)
            try:
                async with self._host.db.read() as tx:
                    messages = await message_store.list_for_server(tx, self._ownership.server_id)
                self._waking.call(self._runners.deliver(messages))
                continue
            except StorageUnavailable as error:
                self._host.db.trouble.report(error)
            except Exception:
                log.exception("messages_not_delivered")
            await asyncio.sleep(RETRY_SECONDS)
            listener.ring()

    async def _tell_end(self, tx: Transaction, ended: Sequence[Execution]) -> None:
        for on_end in self._end_listeners:
            await on_end(tx, ended)

    async def _cut_off_forever(self, deletions: Listener) -> None:
        """Abandon what runs here whenever its blob is deleted, on whatever server, and once a lease, until cancelled.

        It writes nothing from the deletion on, because the journal finds its session gone. This ends the steps under way.
        """
        while True:
            await deletions.wait(self._lease_seconds)
            try:
                # What runs was committed before it ran. So what is not found was deleted, and may be collected already.
                running = self._runners.running
                async with self._host.db.scan(("", "recovery"), patient=True) as tx:
                    present = await execution_store.present(tx, running)
                for execution_id in running - present:
                    self._runners.drop(execution_id)
                continue
            except StorageUnavailable as error:
                self._host.db.trouble.report(error)
            except Exception:
                log.exception("deleted_not_cut_off")
            await asyncio.sleep(RETRY_SECONDS)
            deletions.ring()

    def _on_failure(self, execution: Execution, error: Exception) -> None:
        """Go on with an execution, from its log, after a turn of it was not stored.

        One task does that for an execution, however often its turns are not stored meanwhile.
        """
        if execution.id not in self._going_on:
            self._going_on[execution.id] = asyncio.create_task(self._go_on(execution, error))

    def _on_doubt(self, unit: Unit) -> None:
        """Find out what became of the start of an execution, and launch it if it was made."""
        if self._runners.leaving:
            return
        task = asyncio.create_task(self._recovery.find_out(unit))
        self._in_doubt.add(task)
        task.add_done_callback(self._in_doubt.discard)

    async def _go_on(self, execution: Execution, error: Exception) -> None:
        try:
            await self._recovery.go_on(execution, error)
        finally:
            # Not in a callback of the task, which might be called after the next failure.
            del self._going_on[execution.id]
