"""Begins executions that were started many at once: when no more of them are to be started, and some at a time.

So of ten thousand that are due in one second all are started before they run, and whatever else runs goes on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from blobhub_server.background import Rounds
from blobhub_server.garbage import FullCollections
from blobhub_server.workflow.interpreter import Continue
from blobhub_server.workflow.runtime.embedded.runner import Runner

AT_ONCE = 64
"""How many take their first turn at a time. Others wait for the commit of those turns, so it has to be short."""
MAX_DEFERRED_SECONDS = 10.0
"""How long executions wait while more are started. From then on they run beside that, until none of them waits."""
MAX_PUT_OFF_SECONDS = 30.0
"""For how long the collector's full collections are put off while executions wait, which are some 25 objects each."""
TURN_SECONDS = 1.0
"""How long the first turn of one may keep others waiting: it may have to wait for session objects itself."""


class Launches:
    """Begins executions in their order, those of several organizations in turns, and so those of its actors."""

    def __init__(self) -> None:
        self._waiting: Rounds[Runner] = Rounds(
            lambda runner: runner.execution.organization_id, lambda runner: runner.execution.actor_id
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._deferring = 0
        self._overdue = False
        self._patience: asyncio.TimerHandle | None = None
        self._free = asyncio.Event()
        self._free.set()
        self._collections = FullCollections()

    @property
    def deferring(self) -> bool:
        """Whether what is started now is to run later."""
        return self._deferring > 0

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Have what is appended meanwhile begin when the block is left."""
        self._deferring += 1
        self._collections.put_off(MAX_PUT_OFF_SECONDS)
        self._decide()
        try:
            yield
        finally:
            self._deferring -= 1
            self._decide()
            if not self._tasks:
                self._collections.resume()

    def append(self, runner: Runner) -> None:
        """Have an execution begin when it is its turn."""
        if self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(MAX_DEFERRED_SECONDS, self._run_out_of_patience)
        self._waiting.append(runner)
        if len(self._tasks) < AT_ONCE:
            task = asyncio.create_task(self._work(), name="launches")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def end(self) -> None:
        """Begin no more."""
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        self._collections.resume()

    def _run_out_of_patience(self) -> None:
        self._overdue = True
        self._decide()

    def _decide(self) -> None:
        if self._deferring and not self._overdue:
            self._free.clear()
        else:
            self._free.set()

    async def _work(self) -> None:
        await self._free.wait()
        while self._waiting:
            runner = self._waiting.popleft()
            runner.begin()
            with suppress(Exception):  # Whoever drives the execution from then on is told.
                async with asyncio.timeout(TURN_SECONDS):
                    await runner.post_and_wait(Continue())
            await self._free.wait()
        if self._patience is not None:
            self._patience.cancel()
        self._patience, self._overdue = None, False
        self._decide()
        if not self.deferring:
            self._collections.resume()
