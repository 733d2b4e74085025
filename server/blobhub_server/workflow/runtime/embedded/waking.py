"""Wakes executions that rest and are in nobody's memory: when they are due, and when a message has come for them.

Nothing is polled. It sleeps until the earliest time at which one of this server's is due, which is one read of an index.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice

import structlog

from blobhub_server.background import Rounds
from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.notify import Listener
from blobhub_server.errors import StorageUnavailable
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.message import Message
from blobhub_server.workflow.runtime.embedded.runner import Runner
from blobhub_server.workflow.runtime.embedded.runners import Runners
from blobhub_server.workflow.runtime.rest import server_time
from blobhub_server.workflow.store import resting as store

log = structlog.get_logger()

MIN_SLEEP_SECONDS = 0.05
"""How long at least between two looks at what is due: those that are in memory have timers of their own."""
AHEAD = timedelta(seconds=0.25)
"""How long before it is due an execution is loaded. From then on its own timers wait, which are exact."""
RETRY_SECONDS = 5.0
"""How long until what could not be loaded is tried again."""
AT_ONCE = 64
"""How many are woken at a time. Each may take 64 MiB, so it is few where they are large."""
MAX_QUEUED = 512
"""How many that are due are read at once, and then woken in turns by organization, and by actor in each."""
LOADED_AT_ONCE = 4
"""How many logs are read side by side."""
TURN_SECONDS = 1.0
"""How long the first turn of one may keep others waiting."""

Load = Callable[[Execution], Awaitable[tuple[Runner, Sequence[Message]]]]
"""Makes the runner of an execution from its log, and finds what is in its inbox."""


class Waking:
    """Wakes the executions of this server that rest. `now` is the clock that their rows go by.

    It looks again once a lease, whatever it slept for: one that has lost its runner without a word is found like this.
    """

    def __init__(self, host: Host, runners: Runners, load: Load, now: Callable[[], float], lease_seconds: float) -> None:
        self._host = host
        self._runners = runners
        self._load = load
        self._now = now
        self._lease_seconds = lease_seconds
        self._called: set[str] = set()
        self._listener = Listener()
        self._sleeps_until = math.inf
        self._loading = asyncio.Semaphore(LOADED_AT_ONCE)

    def call(self, execution_ids: Collection[str]) -> None:
        """Wake some executions, those of them that rest: there are messages for them."""
        if execution_ids:
            self._called.update(execution_ids)
            self._listener.ring()

    def look(self) -> None:
        """Look again at what is due."""
        self._listener.ring()

    def on_park(self, execution: Execution) -> None:
        """Note an execution that is not in memory any more."""
        if execution.wake_time.timestamp() < self._sleeps_until:
            self._listener.ring()

    async def wake_forever(self) -> None:
        """Wake whatever is to be woken, until cancelled."""
        attempt = 0
        while True:
            try:
                await self._listener.wait(await self._take_pass())
                attempt = 0
                continue
            except StorageUnavailable as error:
                self._host.db.trouble.report(error)
            except Exception:
                log.exception("executions_not_woken")
            await self._host.db.trouble.pause(attempt)
            attempt += 1

    async def _take_pass(self) -> float:
        """Wake all that is due or called; return for how long there is nothing to do, as far as is known."""
        self._sleeps_until = math.inf
        end, after = server_time(self._now()) + AHEAD, store.BEGINNING
        failed = await self._wake_called()
        while True:
            async with self._host.db.read() as tx:
                due = await store.due(tx, self._host.server_id, end, after=after, limit=MAX_QUEUED)
            if not due:
                break
            after = due[-1].wake_time, due[-1].id
            queue: Rounds[Execution] = Rounds(lambda item: item.organization_id, lambda item: item.actor_id)
            for execution in due:
                queue.append(execution)
            while queue:
                failed += len(await self._wake_all([queue.popleft() for _ in range(min(AT_ONCE, len(queue)))]))
                failed += await self._wake_called()
        return await self._sleep_seconds(end, failed)

    async def _wake_called(self) -> int:
        """Wake those that were called and rest; return how many could not be."""
        failed = list[str]()
        while self._called:
            part = [*islice(self._called, AT_ONCE)]
            async with self._host.db.read() as tx:
                found = await store.among(tx, self._host.server_id, part)
            self._called.difference_update(part)
            failed += await self._wake_all(found)
        self._called.update(failed)
        return len(failed)

    async def _wake_all(self, executions: Sequence[Execution]) -> list[str]:
        """Wake some executions; return those that could not be, by id."""
        absent = [execution for execution in executions if not self._runners.has(execution)]
        woken = await asyncio.gather(*map(self._wake, absent), return_exceptions=True)
        failed = list[str]()
        for execution, error in zip(absent, woken, strict=True):
            if isinstance(error, StorageUnavailable):
                self._host.db.trouble.report(error)
            elif error is not None:
                log.error("not_woken", execution_id=execution.id, exc_info=error)
            if error is not None:
                failed.append(execution.id)
        return failed

    async def _wake(self, execution: Execution) -> None:
        async with self._loading:
            runner, inbox = await self._load(execution)
        # It may have been resumed while its log was read: two runners would run its steps twice.
        if not self._runners.add(runner, inbox):
            return
        # What was taken over may have ended the server that had it. What this server has had itself has ended none.
        runner.wake(cautious=execution.adopted)
        with suppress(Exception):  # Whoever drives it from then on is told.
            async with asyncio.timeout(TURN_SECONDS):
                await runner.settle()

    async def _sleep_seconds(self, end: datetime, failed: int) -> float:
        """For how long nothing comes due that was not looked at, up to `end`, or could not be woken; that is tried again."""
        most = RETRY_SECONDS if failed else self._lease_seconds
        async with self._host.db.read() as tx:
            due = await store.next_wake_time(tx, self._host.server_id, end)
        now = server_time(self._now())
        self._sleeps_until = now.timestamp() + most if due is None else due.timestamp()
        seconds = most if due is None else (due - AHEAD - now).total_seconds()
        return min(max(seconds, MIN_SLEEP_SECONDS), most)
