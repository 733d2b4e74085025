"""What is under way for one execution: the steps that are run, and the timers of what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from blobhub_server.workflow.components.contract import ComponentError
from blobhub_server.workflow.definitions.graph import Graph, Node
from blobhub_server.workflow.interpreter import Completion, Happening, RunStep, Wait, are_unread, beyond_reading, reread
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.session_object import Reading
from blobhub_server.workflow.runtime.embedded.object_locks import ObjectLocks
from blobhub_server.workflow.runtime.embedded.state_memory import StateMemory
from blobhub_server.workflow.runtime.performer import Performer
from blobhub_server.workflow.store.execution import LockedExecution

FREE_CONFLICTS, MAX_CONFLICTS = 10, 100
"""After how many runs in vain of a step on session objects the other executions here wait for it, and after how many it
fails: clients and other servers do not wait."""


class Driver(Protocol):
    """What drives the execution."""

    @property
    def execution(self) -> Execution:
        """The execution as of the last commit."""

    def post(self, happening: Happening) -> None:
        """Queue a happening."""

    async def post_and_wait(self, happening: Happening) -> None:
        """Queue a happening; return when what follows from it is durable. Raises what kept it from being stored."""

    def has_open(self, step: int, failures: int, row: LockedExecution) -> bool | None:
        """Whether a try at a step is open in the execution, whose row is locked; None while this is behind its log."""

    async def read_objects(self, aliases: Collection[str]) -> Reading:
        """The session objects as they are now; with an Unread where they are more than a step may read."""

    def now(self) -> float:
        """The unix time that timers go by."""


class Underway:
    """Runs the steps of an execution and sets its timers. What comes of them is posted to its driver."""

    def __init__(self, driver: Driver, graph: Graph, performer: Performer, locks: ObjectLocks, memory: StateMemory) -> None:
        self._driver = driver
        self._graph = graph
        self._performer = performer
        self._locks = locks
        self._memory = memory
        self._steps: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._timers: dict[tuple[int, int, float], asyncio.TimerHandle] = {}
        self._conflicts: dict[int, int] = {}

    @property
    def is_idle(self) -> bool:
        """Whether no step is run."""
        return not self._steps

    def is_run(self, command: RunStep) -> bool:
        """Whether an attempt at a step is under way."""
        return (command.step, command.attempt) in self._steps

    def start(self, command: RunStep) -> None:
        """Run a step, unless that is under way."""
        if not self.is_run(command):
            task = asyncio.create_task(self._run(command), name=f"step {command.component_id}")
            self._steps[command.step, command.attempt] = task

    def forget(self, completion: Completion) -> None:
        """Forget the task of a step once its end is journaled. Forgotten earlier, the step would be run again."""
        if completion.result is not None:
            self._steps.pop((completion.step, completion.attempt), None)

    def forget_all(self) -> None:
        """Forget the steps that were cancelled, and with them what they were given; none is started any more."""
        if self._steps:
            self._steps.clear()
            return
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        # Each leads to the other, so both would be there until a full collection of the garbage collector.
        with suppress(AttributeError):
            del self._driver

    def set_timer(self, command: Wait) -> None:
        """Set the timer of an await that ends at some time. What else it waits for comes from elsewhere."""
        if command.until is None:
            return
        key = (command.step, command.attempt, command.until)
        if key not in self._timers:
            delay = max(0.0, command.until - self._driver.now())
            self._timers[key] = asyncio.get_running_loop().call_later(delay, self._fire, self._driver, key)

    def cancel(self) -> None:
        """End everything; nothing comes of it any more."""
        for task in self._steps.values():
            task.cancel()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def cancel_step(self, number: int) -> None:
        """End what is run of a step that was given up, and forget its timers."""
        for key in [key for key in self._steps if key[0] == number]:
            self._steps.pop(key).cancel()
        for timed in [key for key in self._timers if key[0] == number]:
            self._timers.pop(timed).cancel()

    def _fire(self, driver: Driver, key: tuple[int, int, float]) -> None:
        self._timers.pop(key, None)
        driver.post(Completion(step=key[0], attempt=key[1]))

    async def _run(self, command: RunStep) -> None:
        node = self._graph.components[command.component_id]
        if node.reread:
            await self._run_on_current(command, node)
        else:
            self._driver.post(await self._perform(command))

    async def _perform(self, command: RunStep) -> Completion:
        driver = self._driver
        is_open = partial(driver.has_open, command.step, command.failures)
        return await self._performer.run(self._graph, driver.execution, command, driver.post, is_open)

    async def _run_on_current(self, command: RunStep, node: Node) -> None:
        """Run a step on the session objects that are there now, while no other step here does anything with them.

        Where somebody else changes them before its end is stored, that does not count, and the step is run again.
        """
        read, conflicts = {*node.reread}, self._conflicts.get(command.step, 0)
        if conflicts >= MAX_CONFLICTS:
            self._driver.post(Completion(step=command.step, attempt=command.attempt, result=_conflict(read)))
            return
        execution = self._driver.execution
        alone_for = execution.id if conflicts >= FREE_CONFLICTS else ""
        async with self._locks.hold(execution.session_id, read | node.session_writes, alone_for):
            objects = await self._driver.read_objects(read)
            # It has them for as long as it waits for its turn to run, runs, and waits to be stored.
            with self._memory.counted(execution, objects.memory_bytes) as fits:
                if are_unread(read, objects.values) or not fits:
                    error = _no_room(read) if not fits else beyond_reading(read)
                    self._driver.post(Completion(step=command.step, attempt=command.attempt, result=error))
                    return
                completion = await self._perform_on(command, objects.values)
                given = {alias: objects.values[alias] for alias in read & objects.values.keys()}
                self._conflicts[command.step] = conflicts + 1  # It is run again only where there was one.
                with suppress(Exception):  # What kept it from being stored is told to the driver too.
                    await self._driver.post_and_wait(replace(completion, session=given))

    async def _perform_on(self, command: RunStep, session: Mapping[str, Any]) -> Completion:
        try:
            inputs = reread(self._graph, command, session)
        except ComponentError as error:
            return Completion(step=command.step, attempt=command.attempt, result=error)
        return await self._perform(replace(command, inputs=inputs))


def _no_room(aliases: Iterable[str]) -> ComponentError:
    """The error of a step that cannot have its session objects in memory beside all else that is there."""
    names = ", ".join(map(repr, sorted(aliases)[:5]))
    message = f"with {names} the executions of its organization take more memory together than they may"
    return ComponentError(message, reason="STATE_LIMIT")


def _conflict(aliases: Iterable[str]) -> ComponentError:
    """The error of a step whose session objects others change each time before it has ended."""
    names = ", ".join(map(repr, sorted(aliases)))
    message = f"each of {MAX_CONFLICTS} runs was in vain, because others had changed {names} before it ended"
    return ComponentError(message, reason="SESSION_CONFLICT", retryable=False)
