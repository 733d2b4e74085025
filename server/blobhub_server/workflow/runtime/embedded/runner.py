"""One execution at work: what happens to it goes through the interpreter, into the journal, and only then has effects.

Happenings queue up while a commit is in flight and go into the next one together. Nothing that the interpreter decides
is acted on before it is durable: a component that touches the outside starts after the commit that says it was entered.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog

from blobhub_server.db.engine import Database
from blobhub_server.workflow.components.contract import (
    ComponentContext,
    ComponentError,
    EffectComponent,
    Services,
    require_result,
)
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter import (
    Completion,
    Continue,
    ExecutionState,
    Failed,
    Happening,
    Interrupted,
    RunStep,
    Signalled,
    StepOutput,
    Stopped,
    StopRequested,
    TimedOut,
    Turn,
    Wait,
    advance,
    session_writes,
    todo,
)
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.message import Message, MessageKind
from blobhub_server.workflow.runtime.contract import Beside
from blobhub_server.workflow.runtime.embedded.journal import Journal, OwnershipLost, TurnOutdated, Unit
from blobhub_server.workflow.store import message as message_store
from blobhub_server.workflow.store import session_object as object_store

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all executions of a server share."""

    db: Database
    journal: Journal
    clock: Callable[[], datetime]
    services: Services


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

    `execution` is the projection as of the last commit, and so is the state; its `last_message` is the last one taken in.
    """

    def __init__(
        self,
        around: Surroundings,
        graph: Graph,
        execution: Execution,
        state: ExecutionState,
        ended: Callable[[Runner], None],
        broken: Callable[[Runner], None],
    ) -> None:
        self.execution = execution
        self._around = around
        self._graph = graph
        self._state = state
        self._ended = ended
        self._broken = broken
        self._arrivals: deque[Arrival] = deque()
        self._messages: Sequence[Message] = ()
        self._pump: asyncio.Task[None] | None = None
        self._steps: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._timers: dict[tuple[int, int, float], asyncio.TimerHandle] = {}
        self._deadline: asyncio.TimerHandle | None = None
        self._over = False

    def begin(self) -> None:
        """Set to work, once the start is durable."""
        self._arm_deadline()
        self._act()

    def resume(self) -> None:
        """Go on after a restart: the steps that were in flight are run again, timers are set again."""
        self._arm_deadline()
        commands = todo(self._graph, self._state, self._around.clock().timestamp())
        interrupted = [Interrupted(command.step) for command in commands if isinstance(command, RunStep)]
        for happening in interrupted:
            self.post(happening)
        if self._state.status == "stopping":
            self.post(Stopped())
        elif not interrupted:
            self.post(Continue())

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
                self._act()
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
            unit = self.unit(happenings, await self._session_objects())
            if not unit.records and not unit.messages:
                return
            try:
                await self._around.journal.append(unit)
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

    def unit(
        self,
        happenings: Sequence[Happening],
        session: Mapping[str, Any],
        *,
        beside: Beside | None = None,
        limit: int | None = None,
        then: Callable[[], None] | None = None,
    ) -> Unit:
        """What messages and happenings lead to, to be made durable; then this takes it on, and calls `then`.

        Messages come first: what has been asked for, and answered, is not undone by what happens at the same time.
        `session` holds the session's objects that the graph touches.
        """
        now = self._around.clock().timestamp()
        messages = self._messages
        turn = self._advance([*map(_happening, messages), *happenings], now, session)

        def committed(execution: Execution) -> None:
            self._state, self.execution = turn.state, execution
            if then is not None:
                then()

        return Unit(
            execution=self._project(turn, now, messages),
            graph=self._graph,
            messages=len(messages),
            records=turn.records,
            committed=committed,
            limit=limit,
            objects=session_writes(self._graph, turn.records),
            beside=beside,
        )

    def _advance(self, happenings: Sequence[Happening], now: float, session: Mapping[str, Any]) -> Turn:
        try:
            return advance(self._graph, self._state, happenings, now=now, session=session)
        except Exception:
            log.exception("interpreter_failed", execution_id=self.execution.id)
            failure = Failed("INTERNAL", "the execution could not go on")
            return advance(self._graph, self._state, [failure], now=now, session=session)

    def _project(self, turn: Turn, now: float, messages: Sequence[Message]) -> Execution:
        state = turn.state
        ended = state.ended
        return replace(
            self.execution,
            state=state.status,
            has_result=state.has_result,
            result=state.result,
            failure=state.error,
            last_sequence=self.execution.last_sequence + len(turn.records),
            last_message=messages[-1].number if messages else self.execution.last_message,
            end_time=datetime.fromtimestamp(now, UTC) if ended else None,
        )

    def _act(self) -> None:
        """Do what the durable state asks for: run steps, set timers, go on, or end."""
        if self._state.ended:
            self._over = True
            self._let_go()
            for item in self._arrivals:
                item.tell()
            self._ended(self)
            return
        if self._state.status == "stopping":
            self._let_go()
            self.post(Stopped())
            return
        for command in todo(self._graph, self._state, self._around.clock().timestamp()):
            if isinstance(command, RunStep):
                self._start(command)
            elif command.until is not None:
                self._set(command, command.until)
        if self._state.runnable:
            self.post(Continue())

    def _start(self, command: RunStep) -> None:
        key = (command.step, command.attempt)
        if key not in self._steps:
            self._steps[key] = asyncio.create_task(self._step(command), name=f"step {command.component_id}")

    async def _step(self, command: RunStep) -> None:
        started = time.monotonic()
        component = self._graph.components[command.component_id].implementation
        assert isinstance(component, EffectComponent), "others are evaluated in place"
        context = ComponentContext(
            session_id=self.execution.session_id,
            execution_id=self.execution.id,
            idempotency_key=f"{self.execution.id}/{command.step}",
            attempt=command.attempt,
            emit_output=lambda value: self.post(StepOutput(command.step, value)),
            services=self._around.services,
        )
        try:
            async with asyncio.timeout(command.timeout):
                result = require_result(await component.run(command.inputs, context))
        except TimeoutError:
            self._failed(command, ComponentError(f"took longer than {command.timeout:g} s", reason="TIMEOUT"))
        except ComponentError as error:
            self._failed(command, error)
        except Exception:
            log.exception("component_failed", component=component.type, execution_id=self.execution.id)
            self._failed(command, ComponentError("the component failed unexpectedly", reason="INTERNAL"))
        else:
            elapsed = time.monotonic() - started
            self.post(Completion(command.step, command.attempt, result, elapsed))

    def _failed(self, command: RunStep, error: ComponentError) -> None:
        self.post(Completion(command.step, command.attempt, error))

    def _set(self, command: Wait, until: float) -> None:
        """Have the time come for an await; whatever else it waits for is brought about by others."""
        key = (command.step, command.attempt, until)
        if key not in self._timers:
            delay = max(0.0, until - self._around.clock().timestamp())
            self._timers[key] = asyncio.get_running_loop().call_later(delay, self._fire, key)

    def _fire(self, key: tuple[int, int, float]) -> None:
        self._timers.pop(key, None)
        self.post(Completion(key[0], key[1]))

    def _arm_deadline(self) -> None:
        if self.execution.timeout is None or self._state.ended:
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


def _happening(message: Message) -> Happening:
    """What a message is to the interpreter."""
    match message.kind:
        case MessageKind.STOP:
            return StopRequested()
        case MessageKind.SIGNAL:
            return Signalled(message.body["name"], message.body["key"], message.body["value"])
