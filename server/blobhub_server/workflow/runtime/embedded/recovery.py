"""Resumes executions without a runner: those of servers that are gone, and those left behind on this server.

Those that only rest are taken over by their rows, and stay where they are until they are woken (`waking.py`).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog

from blobhub_server.background import Turns
from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import StorageUnavailable
from blobhub_server.workflow.definitions.finder import Definitions
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter import Continue, ExecutionState, Failed, Record, apply
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.message import Message
from blobhub_server.workflow.runtime.decision import Progress
from blobhub_server.workflow.runtime.embedded.journal import LogMovedOn, OwnershipLost
from blobhub_server.workflow.runtime.embedded.ownership import Ownership
from blobhub_server.workflow.runtime.embedded.runner import Runner
from blobhub_server.workflow.runtime.embedded.runners import Runners
from blobhub_server.workflow.runtime.embedded.unit import Unit
from blobhub_server.workflow.runtime.rest import server_time
from blobhub_server.workflow.store import event as event_store
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import message as message_store
from blobhub_server.workflow.store import owner as owner_store

log = structlog.get_logger()

_PARTY = ("", "recovery")
"""Whose turn its long reads are."""
_LINES_AT_ONCE, _CHARACTERS_AT_ONCE = 128, 2 << 20
"""How many lines of a log are in memory at most while it is replayed, and from how many characters on no more are."""

_LOADED_AT_ONCE = 4
"""How many logs are read side by side; the state of each may take 64 MiB."""

SETTLE_SECONDS = 5.0
"""How long others wait, at most, for a counted execution to go on. What ends the server does that at once; one that takes
longer waits for the storage, or for its turn."""

LOOKS = 5
"""How often the database is asked, in about a second, for an execution whose start may have been committed."""

PASSING = (StorageUnavailable, LogMovedOn)
"""Errors after which the same turn may be stored the next time."""


class Recovery:
    """Resumes executions that have no runner, from their logs.

    `on_adoption` is called when some that rest were taken over; they go by the clock `server_now`.
    """

    def __init__(
        self,
        host: Host,
        definitions: Definitions,
        ownership: Ownership,
        runners: Runners,
        lease_seconds: float,
        on_adoption: Callable[[], None],
        server_now: Callable[[], float],
    ) -> None:
        self._host = host
        self._definitions = definitions
        self._ownership = ownership
        self._lease_seconds = lease_seconds
        self._runners = runners
        self._on_adoption = on_adoption
        self._server_now = server_now
        self._unattended: frozenset[str] = frozenset()
        self._strays: frozenset[str] = frozenset()

    async def recover_forever(self) -> None:
        """Recover now and then, until cancelled."""
        while True:
            try:
                await self.recover()
            except StorageUnavailable as error:
                self._host.db.trouble.report(error)
            except Exception:
                log.exception("recovery_failed")
            await asyncio.sleep(self._lease_seconds)

    async def recover(self) -> None:
        """Resume what no living server owns, and what this server owns and does not run.

        Others have their turns in between. What was counted before comes first and alone, so that what ends this server is
        the one that is counted for it; only their logs are read side by side, which evaluates nothing.
        """
        claims = adopts = True
        while claims or adopts:
            begun = time.monotonic()
            adopts = adopts and await self._adopt()
            claimed = await self._ownership.claim() if claims else []
            claims = bool(claimed)
            for start in range(0, len(claimed), _LOADED_AT_ONCE):
                await self._take_over_some(claimed[start : start + _LOADED_AT_ONCE])
            await asyncio.sleep(0 if claims else time.monotonic() - begun)  # Whoever calls comes first.
        running, server_id = self._runners.running, self._ownership.server_id
        async with self._host.db.scan(_PARTY, patient=True) as tx:
            active = await owner_store.active_ids(tx, server_id)
            owned = await owner_store.owned(tx, server_id, running)
        # An execution that was just committed gets its runner in a moment. One that has none the next time either was left
        # behind, for example because the connection was lost during its commit.
        unattended = frozenset(active - self._runners.running)
        for execution_id in unattended & self._unattended:
            await _attempt(execution_id, self._resume_unattended(execution_id))
        self._unattended = unattended
        # An execution that just ended loses its runner in a moment. One that is still not owned was taken over.
        strays = running - owned
        for execution_id in strays & self._strays:
            self._runners.drop(execution_id)
        self._strays = strays

    async def _adopt(self) -> bool:
        """Take over some of what no living server owns and only rests; False where there is no more."""
        adopted = await self._ownership.adopt(server_time(self._server_now()))
        if adopted:
            self._on_adoption()
        return adopted > 0

    async def find_out(self, unit: Unit) -> None:
        """Launch a new execution if its commit, which seemed to fail, was made. Whoever has asked for it does not know it.

        The database may make a commit a moment after the connection was lost. One that takes longer shows as unattended.
        """
        looks = 0
        for attempt in itertools.count():
            await self._host.db.trouble.pause(attempt)
            try:
                made = await self._get_owned(unit.execution.id)
            except StorageUnavailable as error:
                self._host.db.trouble.report(error)
                continue
            looks += 1
            if made is not None:
                unit.on_commit()
                self._ring(made)
            if made is not None or looks == LOOKS:
                return

    async def go_on(self, execution: Execution, error: Exception) -> None:
        """Go on with an execution, a turn of which was not stored, from its log; return once one is.

        It is tried for as long as this server owns the execution. When the storage could not be used, or the log has moved
        on, the execution is resumed. After any other error it is failed, because the same turn would not be stored the next
        time either.
        """
        for attempt in itertools.count():
            self._tell(execution.id, error)
            await self._host.db.trouble.pause(attempt)
            try:
                await self._take_turn(execution.id, fail=not isinstance(error, PASSING))
                break
            except OwnershipLost:
                break
            except Exception as again:
                error = again
        self._ring(execution)

    def _ring(self, execution: Execution) -> None:
        """Wake watchers. A commit that seemed to fail may have been made, and nobody was woken for it here."""
        for topic in (execution.id, execution.session_id):
            self._host.bell.ring(topic)

    def _tell(self, execution_id: str, error: Exception) -> None:
        """Tell the operator why a turn was not stored."""
        if isinstance(error, StorageUnavailable):
            self._host.db.trouble.report(error)
        elif isinstance(error, PASSING):
            log.warning("turn_not_stored", execution_id=execution_id, reason=repr(error))
        else:
            log.error("turn_not_stored", execution_id=execution_id, exc_info=error)

    async def _take_turn(self, execution_id: str, *, fail: bool) -> None:
        """Resume or fail an execution from its log, unless it has ended or has another owner; return once that is stored."""
        execution = await self._get_owned(execution_id)
        if execution is None:
            return
        runner, inbox = await self.load_runner(execution)
        # One that was resumed in the meantime goes on by itself.
        if not self._runners.add(runner, inbox):
            return
        if fail:
            await runner.post_and_wait(Failed("INTERNAL", "what the execution did could not be stored"))
        else:
            runner.resume()
            await runner.post_and_wait(Continue())

    async def _resume_unattended(self, execution_id: str) -> None:
        execution = await self._get_owned(execution_id)
        if execution is not None:
            await self._take_over(execution)

    async def _get_owned(self, execution_id: str) -> Execution | None:
        """An execution, if this server owns it and it has not ended."""
        async with self._host.db.read() as tx:
            execution = await execution_store.get(tx, execution_id)
        mine = execution is not None and execution.owner == self._ownership.server_id and not execution.ended
        return execution if mine else None

    async def _take_over(self, execution: Execution) -> None:
        """Resume an execution, unless it has a runner here; with caution, because it may have ended its last server."""
        if self._runners.has(execution):
            return
        await self._resume(execution, *await self.load_runner(execution))

    async def _take_over_some(self, executions: Sequence[Execution]) -> None:
        """Take over executions, whose logs are read side by side. A failure is logged, and delays no other."""
        idle = [execution for execution in executions if not self._runners.has(execution)]
        loaded = await asyncio.gather(*map(self.load_runner, idle), return_exceptions=True)
        for execution, found in zip(idle, loaded, strict=True):
            if isinstance(found, BaseException):
                log.error("not_recovered", execution_id=execution.id, exc_info=found)
            else:
                await _attempt(execution.id, self._resume(execution, *found))
            await asyncio.sleep(0)

    async def _resume(self, execution: Execution, runner: Runner, inbox: Sequence[Message]) -> None:
        """Resume an execution; return when it has gone on, if it was counted, or has taken too long for that."""
        # It may have been launched while its log was read: two runners would run its steps twice.
        if not self._runners.add(runner, inbox):
            return
        runner.resume(cautious=True)
        if execution.recoveries:
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_SECONDS):
                    await runner.settle()

    async def load_runner(self, execution: Execution) -> tuple[Runner, list[Message]]:
        """A runner in the state of the log, and the messages in the inbox, which are not in the log yet.

        The execution's row was read before the inbox, so the inbox may have messages that the row does not count.
        """
        graph = await self._definitions.load_started(execution.definition_digest)
        async with self._host.db.scan(_PARTY, patient=True) as tx:
            state, journaled = await _replay(tx, graph, execution)
            inbox = await message_store.list_for_execution(tx, execution.id)
        taken = inbox[0].number - 1 if inbox else execution.last_message
        return self._runners.make(graph, Progress(replace(execution, last_message=taken), state), journaled), inbox


async def _replay(tx: Transaction, graph: Graph, execution: Execution) -> tuple[ExecutionState, float]:
    """The state that an execution's log leads to, and the time of its last record.

    A log may be long, so it is read in parts and folded in turns.
    """
    state, turns, after, journaled = ExecutionState(step_limit=execution.step_limit), Turns(), 0, 0.0
    while lines := await event_store.records_to_replay(
        tx, execution.id, after, limit=_LINES_AT_ONCE, max_characters=_CHARACTERS_AT_ONCE
    ):
        for line in lines:
            record = Record.from_json(json.loads(line))
            apply(graph, state, record)
            journaled = record.at
            await turns.pause()
        after += len(lines)
    return state, journaled


async def _attempt(execution_id: str, work: Coroutine[Any, Any, None]) -> None:
    """Recover one execution. A failure is logged, so that it delays neither other executions nor the start."""
    try:
        await work
    except Exception:
        log.exception("not_recovered", execution_id=execution_id)
