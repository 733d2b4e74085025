"""The embedded runtime: starts, stops and recovers the executions of the sessions this server owns."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog

from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import PermissionDenied
from blobhub_server.workflow.components.contract import Services
from blobhub_server.workflow.definitions.finder import Definitions
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.errors import OwnershipLost
from blobhub_server.workflow.interpreter import (
    ExecutionState,
    Failed,
    Happening,
    Interrupted,
    Record,
    RunStep,
    StopRequested,
    replay,
    todo,
)
from blobhub_server.workflow.log.log import EventLog
from blobhub_server.workflow.log.session_events import SessionEvents
from blobhub_server.workflow.rules.execution import Execution, require_stoppable
from blobhub_server.workflow.rules.session import CLOSED, CLOSING, OPEN, Session
from blobhub_server.workflow.runtime.contract import Beside, Remember, Start
from blobhub_server.workflow.runtime.embedded.journal import Journal
from blobhub_server.workflow.runtime.embedded.ownership import Ownership
from blobhub_server.workflow.runtime.embedded.runner import Runner, Surroundings
from blobhub_server.workflow.runtime.embedded.start import Starts
from blobhub_server.workflow.store import event as event_store
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import session as session_store

log = structlog.get_logger()

_ENDED_LATELY = 1024
"""How many ended executions are kept at hand; what has ended does not change any more."""


class EmbeddedRuntime:
    """Runs executions in this process. See `contract.Runtime` for what the services ask of it."""

    def __init__(
        self,
        host: Host,
        definitions: Definitions,
        services: Services,
        log: EventLog,
        session_events: SessionEvents,
        lease_seconds: float,
    ) -> None:
        self._host = host
        self._definitions = definitions
        self._session_events = session_events
        self._lease_seconds = lease_seconds
        self._journal = Journal(host, log)
        self._ownership = Ownership(host, lease_seconds)
        self._around = Surroundings(host.db, self._journal, host.clock, services)
        self._starts = Starts(host, definitions, self._journal, self._ownership, self._runner, self._launch)
        self._runners: dict[str, Runner] = {}
        self._ended_lately: OrderedDict[str, Execution] = OrderedDict()
        self._closing: set[str] = set()
        self._unattended: frozenset[str] = frozenset()
        self._leaving = False
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Recover what was left, and keep running until left."""
        await self._ownership.join()
        await self._recover()
        keep = [
            asyncio.create_task(self._ownership.renew_forever()),
            asyncio.create_task(self._recover_forever()),
        ]
        try:
            yield
        finally:
            self._leaving = True
            for task in keep:
                task.cancel()
            for runner in list(self._runners.values()):
                runner.abandon()
            await asyncio.gather(*keep, *self._tasks, return_exceptions=True)
            await self._journal.close()
            await self._ownership.leave()

    def _runner(self, graph: Graph, execution: Execution, state: ExecutionState, fence: int) -> Runner:
        return Runner(self._around, graph, execution, state, fence, self._ended, self._broken)

    def _launch(self, runner: Runner) -> None:
        """Set a new execution to work, unless recovery was quicker.

        A server that is going away leaves it in the database, to whoever is next.
        """
        if not self._leaving and runner.execution.id not in self._runners:
            self._runners[runner.execution.id] = runner
            runner.begin()

    async def start(self, start: Start, beside: Beside | None = None) -> Execution:
        """See contract.Runtime."""
        return await self._starts.submit(start, beside)

    async def join(self, tx: Transaction, start: Start) -> Execution:
        """See contract.Runtime."""
        return await self._starts.join(tx, start)

    async def stop(self, execution_id: str, remember: Remember) -> Execution:
        """Ask an execution to stop; return it once that is durable. Raises ExecutionEnded, OwnershipLost."""
        runner = self._runners.get(execution_id)
        written = runner is not None and await runner.settle(StopRequested(), remember)
        execution = await self.current(execution_id)
        require_stoppable(execution)
        if not execution.ended and execution.state != "stopping":
            raise OwnershipLost
        if not written:
            async with self._host.db.write() as tx:
                await self._host.settle(tx, [remember(execution)])
        return execution

    async def current(self, execution_id: str) -> Execution:
        """An execution as of its last commit."""
        runner = self._runners.get(execution_id)
        known = runner.execution if runner is not None else self._ended_lately.get(execution_id)
        return known if known is not None else await self._stored(execution_id)

    async def ended(self, execution_id: str) -> Execution:
        """An execution whose log has ended. A watcher may have read that before it was told here: then its row has it."""
        known = await self.current(execution_id)
        return known if known.ended else await self._stored(execution_id)

    async def _stored(self, execution_id: str) -> Execution:
        async with self._host.db.read() as tx:
            execution = await execution_store.get(tx, execution_id)
        if execution is None:
            raise PermissionDenied
        return execution

    async def close(self, tx: Transaction, session_id: str) -> Session:
        """Let a session take nothing new, and close it if nothing runs in it; return it as it is then.

        What does run is stopped after the commit, and the last of it closes the session. Raises PermissionDenied.
        """
        session = await session_store.get(tx, session_id, lock=True)
        if session is None:
            raise PermissionDenied
        if session.state == OPEN:
            await session_store.set_state(tx, session_id, CLOSING, self._host.clock())
            await self._session_events.closing(tx, session_id)
        await self._close_if_idle(tx, session_id)

        def finish() -> None:
            self._spawn(self._finish_closing(session_id))

        tx.after_commit(finish)
        now = await session_store.get(tx, session_id)
        assert now is not None, "it is locked in this transaction"
        return now

    async def _close_if_idle(self, tx: Transaction, session_id: str) -> bool:
        """Close a session that is closing, once nothing runs in it any more; True when there is nothing left to do."""
        session = await session_store.get(tx, session_id, lock=True)
        if session is None or session.state != CLOSING:
            return True
        if await execution_store.running(tx, session_id):
            return False
        await session_store.set_state(tx, session_id, CLOSED, self._host.clock())
        await self._session_events.closed(tx, session_id)
        return True

    async def _finish_closing(self, session_id: str) -> None:
        """Stop what runs here, and close the session when nothing runs anywhere."""
        self._closing.add(session_id)
        for runner in list(self._runners.values()):
            if runner.execution.session_id == session_id:
                runner.post(StopRequested())
        async with self._host.db.write() as tx:
            done = await self._close_if_idle(tx, session_id)
        if done:
            self._closing.discard(session_id)
            self._ownership.forget(session_id)

    def cut_off(self, session_ids: set[str]) -> None:
        """End what runs here in sessions that are gone: this brings about a commit, which finds them gone."""
        for runner in list(self._runners.values()):
            if runner.execution.session_id in session_ids:
                runner.post(StopRequested())

    def _ended(self, runner: Runner) -> None:
        self._runners.pop(runner.execution.id, None)
        if runner.execution.ended:
            self._ended_lately[runner.execution.id] = runner.execution
            if len(self._ended_lately) > _ENDED_LATELY:
                self._ended_lately.popitem(last=False)
        if runner.execution.session_id in self._closing:
            self._spawn(self._finish_closing(runner.execution.session_id))

    async def _recover_forever(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds)
            try:
                await self._recover()
            except Exception:
                log.exception("recovery_failed")

    async def _recover(self) -> None:
        """Go on with what ran in sessions whose server is gone, and with what runs nowhere in those of this one."""
        async with self._host.db.read() as tx:
            orphans = await execution_store.orphans(tx, self._host.clock())
            closing = await session_store.closing_of(tx, self._ownership.server_id)
            running = await execution_store.running_on(tx, self._ownership.server_id)
        for session_id in orphans:
            await _attempt(self._adopt, session_id)
        # What was committed a moment ago is about to be launched; what has no runner the next time either was left behind,
        # by a start that claimed the session of a dead server, or by a connection that was lost during its commit.
        unattended = frozenset(running - self._runners.keys())
        for execution_id in unattended & self._unattended:
            await _attempt(self._attend, execution_id)
        self._unattended = unattended
        for session_id in closing:
            await _attempt(self._finish_closing, session_id)

    async def _adopt(self, session_id: str) -> None:
        """Take over a session, and go on with what ran in it. Raises OwnershipLost when another server was quicker."""
        fence = await self._ownership.claim(session_id)
        async with self._host.db.read() as tx:
            session = await session_store.get(tx, session_id)
            left = await execution_store.running(tx, session_id)
        for execution in left:
            await self._resume(execution, fence)
        if session is not None and session.state == CLOSING:
            await self._finish_closing(session_id)

    async def _attend(self, execution_id: str) -> None:
        execution = await self._stored(execution_id)
        if not execution.ended:
            await self._resume(execution, await self._ownership.fence(execution.session_id))

    async def _resume(self, execution: Execution, fence: int) -> None:
        """Go on with an execution that has no runner here, from its log."""
        if execution.id in self._runners:
            return
        runner, interrupted = await self._from_log(execution, fence)
        # It may have been launched while its log was read: two runners would run its steps twice.
        if execution.id not in self._runners:
            self._runners[execution.id] = runner
            runner.resume(interrupted)

    async def _from_log(self, execution: Execution, fence: int) -> tuple[Runner, list[Happening]]:
        """A runner in the state that the log says, and the steps that were in flight when it was written."""
        async with self._host.db.read() as tx:
            lines = await event_store.records(tx, execution.id)
        graph = (await self._definitions.load(execution.definition_digest)).runnable()
        state = replay(graph, (Record.from_json(json.loads(line)) for line in lines), step_limit=execution.step_limit)
        runner = self._runner(graph, execution, state, fence)
        commands = todo(graph, state, self._host.clock().timestamp())
        return runner, [Interrupted(command.step) for command in commands if isinstance(command, RunStep)]

    def _broken(self, runner: Runner) -> None:
        """A commit failed for another reason than ownership: the execution fails, from what its log says."""
        self._spawn(self._fail_from_log(runner.execution.id, runner.fence))

    async def _fail_from_log(self, execution_id: str, fence: int) -> None:
        for wait in (0.1, 1.0, 10.0):
            await asyncio.sleep(wait)
            try:
                execution = await self.current(execution_id)
                if not execution.ended:
                    made, _ = await self._from_log(execution, fence)
                    runner = self._runners.setdefault(execution_id, made)
                    await runner.settle(Failed("INTERNAL", "what the execution did could not be stored"))
                return
            except Exception:
                log.exception("execution_not_failed", execution_id=execution_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _attempt(work: Callable[[str], Awaitable[None]], id_: str) -> None:
    """Recover one thing. What cannot be recovered now holds up no other, nor the start of the server."""
    try:
        await work(id_)
    except OwnershipLost:
        pass  # another server goes on with it
    except Exception:
        log.exception("not_recovered", id=id_)
