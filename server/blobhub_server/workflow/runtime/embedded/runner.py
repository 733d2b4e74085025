"""One execution at work: the loop between deciding and performing.

What happens to it is decided on, journaled, and only then performed: a component that touches the outside starts after the
commit that says it was entered. Happenings queue up while a commit is in flight and go into the next one together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import structlog

from blobhub_server.db.engine import Database
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter import (
    Command,
    Completion,
    Continue,
    Failed,
    GoOn,
    Halt,
    Happening,
    Interrupted,
    RunStep,
    Stopped,
    TimedOut,
    Wait,
    todo,
)
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.message import Message
from blobhub_server.workflow.runtime.contract import Beside
from blobhub_server.workflow.runtime.decision import Decision, Progress, happen
from blobhub_server.workflow.runtime.embedded.journal import Journal, OwnershipLost, TurnOutdated, Unit
from blobhub_server.workflow.runtime.performer import Performer
from blobhub_server.workflow.store import message as message_store
from blobhub_server.workflow.store import session_object as object_store

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all executions of a server share."""

    db: Database
    journal: Journal
    clock: Callable[[], datetime]
    performer: Performer


@dataclass(frozen=True, slots=True)
class Arrival:
    """Something that is to happen; `done` is told once what follows from it is durable, or that nothing does."""

    happening: Happening
    done: asyncio.Future[None] | None = None

    def tell(self) -> None:
        """Tell whoever waits."""
        if self.done is not None and not self.done.done():
            self.done.set_result(None)


class Runner:
    """Drives one execution until it ends here, or until another server has taken it.

    How far the execution has come is as of the last commit.
    """

    def __init__(
        self,
        around: Surroundings,
        graph: Graph,
        progress: Progress,
        ended: Callable[[Runner], None],
        broken: Callable[[Runner], None],
    ) -> None:
        self._around = around
        self._graph = graph
        self._progress = progress
        self._commands: Sequence[Command] = ()
        self._ended = ended
        self._broken = broken
        self._arrivals: deque[Arrival] = deque()
        self._messages: Sequence[Message] = ()
        self._pump: asyncio.Task[None] | None = None
        self._steps: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._timers: dict[tuple[int, int, float], asyncio.TimerHandle] = {}
        self._deadline: asyncio.TimerHandle | None = None
        self._over = False

    @property
    def execution(self) -> Execution:
        """The execution as of the last commit."""
        return self._progress.execution

    def begin(self) -> None:
        """Set to work, once the start is durable."""
        self._arm_deadline()
        self._perform()

    def resume(self) -> None:
        """Go on after a restart: the steps that were in flight are run again, timers are set again."""
        self._arm_deadline()
        self.post(Continue())
        for command in todo(self._graph, self._progress.state, self._now()):
            if isinstance(command, RunStep):
                self.post(Interrupted(command.step))

    def post(self, happening: Happening) -> None:
        """Let something happen to the execution, whenever its turn comes."""
        self._arrivals.append(Arrival(happening))
        self._wake()

    def deliver(self, messages: Sequence[Message]) -> None:
        """Take in messages to the execution whenever their turn comes. It does not matter how often they are delivered."""
        known = {message.number: message for message in (*self._messages, *messages)}
        self._messages = [known[number] for number in sorted(known) if number > self.execution.last_message]
        if self._messages:
            self._wake()

    async def settle(self, happening: Happening) -> None:
        """Let something happen, and return when what follows from it is durable, or the execution has ended before."""
        if self._over:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrivals.append(Arrival(happening, done))
        self._wake()
        await done

    def abandon(self) -> None:
        """Stop working on the execution without a word: another server, or the next start, goes on with it."""
        self._over = True
        self._let_go()
        if self._pump is not None:
            self._pump.cancel()

    def _wake(self) -> None:
        if self._pump is None and not self._over:
            self._pump = asyncio.create_task(self._run(), name=f"execution {self.execution.id}")

    async def _run(self) -> None:
        try:
            while (self._arrivals or self._messages) and not self._over:
                batch = list(self._arrivals)
                self._arrivals.clear()
                try:
                    await self._commit([item.happening for item in batch])
                except Exception as error:
                    self._give_up(batch, error)
                    return
                for item in batch:
                    item.tell()
                    self._forget(item.happening)
                self.deliver(self._messages)
                self._perform()
        finally:
            self._pump = None

    def _forget(self, happening: Happening) -> None:
        """Forget the task of a step whose end is taken. Before that it must be known, or the step would be run again."""
        if isinstance(happening, Completion) and happening.result is not None:
            self._steps.pop((happening.step, happening.attempt), None)

    def _give_up(self, batch: list[Arrival], error: Exception) -> None:
        """Leave the execution as the log has it.

        Where another server has taken over there is nothing more to do; else somebody has to start from the log again.
        """
        for item in [*batch, *self._arrivals]:
            if item.done is not None and not item.done.done():
                item.done.set_exception(error)
        self._over = True
        self._let_go()
        self._ended(self)
        if not isinstance(error, OwnershipLost):
            log.error("journal_failed", execution_id=self.execution.id, exc_info=error)
            self._broken(self)

    async def _commit(self, happenings: Sequence[Happening]) -> None:
        """Make what happenings and messages lead to durable. A turn that a message came before is decided again."""
        while True:
            decision = self._decide(happenings, await self._session_objects())
            if not decision.records and not decision.messages:
                self._commands = decision.commands
                return
            try:
                await self._around.journal.append(self._unit(decision))
                return
            except TurnOutdated:
                async with self._around.db.read() as tx:
                    self.deliver(await message_store.to_execution(tx, self.execution.id))

    async def _session_objects(self) -> Mapping[str, Any]:
        """The session's objects that the graph touches."""
        if not self._graph.session_aliases:
            return {}
        async with self._around.db.read() as tx:
            return await object_store.values(tx, self.execution.session_id, self._graph.session_aliases)

    def first(
        self,
        happening: Happening,
        session: Mapping[str, Any],
        *,
        limit: int,
        beside: Beside | None,
        then: Callable[[], None],
    ) -> Unit:
        """What the start of a new execution leads to, to be made durable. See Unit; `then` is called after the commit."""
        return self._unit(self._decide([happening], session), limit=limit, beside=beside, then=then)

    def _decide(self, happenings: Sequence[Happening], session: Mapping[str, Any]) -> Decision:
        decide = partial(happen, self._graph, self._progress, now=self._now(), session=session, messages=self._messages)
        try:
            return decide(happenings)
        except Exception:
            log.exception("interpreter_failed", execution_id=self.execution.id)
            return decide([Failed("INTERNAL", "the execution could not go on")])

    def _unit(
        self,
        decision: Decision,
        *,
        limit: int | None = None,
        beside: Beside | None = None,
        then: Callable[[], None] | None = None,
    ) -> Unit:
        def committed() -> None:
            self._progress, self._commands = decision.progress, decision.commands
            if then is not None:
                then()

        return Unit(
            execution=decision.progress.execution,
            graph=self._graph,
            records=decision.records,
            committed=committed,
            messages=decision.messages,
            limit=limit,
            objects=decision.objects,
            beside=beside,
        )

    def _perform(self) -> None:
        """Perform what was decided last: run steps, set timers, go on, or end."""
        if self.execution.ended:
            self._over = True
            self._let_go()
            for item in self._arrivals:
                item.tell()
            self._ended(self)
            return
        for command in self._commands:
            match command:
                case RunStep():
                    self._start(command)
                case Wait(until=until) if until is not None:
                    self._set(command, until)
                case GoOn():
                    self.post(Continue())
                case Halt():
                    self._let_go()
                    self.post(Stopped())

    def _start(self, command: RunStep) -> None:
        key = (command.step, command.attempt)
        if key not in self._steps:
            self._steps[key] = asyncio.create_task(self._step(command), name=f"step {command.component_id}")

    async def _step(self, command: RunStep) -> None:
        self.post(await self._around.performer.run(self._graph, self.execution, command, self.post))

    def _set(self, command: Wait, until: float) -> None:
        """Have the time come for an await; whatever else it waits for is brought about by others."""
        key = (command.step, command.attempt, until)
        if key not in self._timers:
            delay = max(0.0, until - self._now())
            self._timers[key] = asyncio.get_running_loop().call_later(delay, self._fire, key)

    def _fire(self, key: tuple[int, int, float]) -> None:
        self._timers.pop(key, None)
        self.post(Completion(key[0], key[1]))

    def _arm_deadline(self) -> None:
        if self.execution.timeout is None or self.execution.ended:
            return
        left = (self.execution.create_time + self.execution.timeout - self._around.clock()).total_seconds()
        self._deadline = asyncio.get_running_loop().call_later(max(0.0, left), self.post, TimedOut())

    def _let_go(self) -> None:
        for task in self._steps.values():
            task.cancel()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._deadline is not None:
            self._deadline.cancel()

    def _now(self) -> float:
        return self._around.clock().timestamp()
