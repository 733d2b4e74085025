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

from blobhub_server.blobtypes.contract import Settled
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.workflow.components.contract import (
    ComponentContext,
    ComponentError,
    EffectComponent,
    Services,
    require_result,
)
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.errors import OwnershipLost
from blobhub_server.workflow.interpreter import (
    Completion,
    Continue,
    ExecutionState,
    Failed,
    Happening,
    RunStep,
    StepOutput,
    Stopped,
    TimedOut,
    Turn,
    Wait,
    advance,
    session_writes,
    todo,
)
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.runtime.contract import Beside, Remember
from blobhub_server.workflow.runtime.embedded.journal import Journal, Unit
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
    """Something that is to happen; `done` is told whether it was written, once that is durable."""

    happening: Happening
    done: asyncio.Future[bool] | None = None
    remember: Remember | None = None

    def tell(self, *, written: bool) -> None:
        """Tell whoever waits."""
        if self.done is not None and not self.done.done():
            self.done.set_result(written)


class Runner:
    """Drives one execution until it ends here, or until another server has taken it.

    `execution` is the projection as of the last commit, and so is the state.
    """

    def __init__(
        self,
        around: Surroundings,
        graph: Graph,
        execution: Execution,
        state: ExecutionState,
        fence: int,
        ended: Callable[[Runner], None],
        broken: Callable[[Runner], None],
    ) -> None:
        self.execution = execution
        self.fence = fence
        self._around = around
        self._graph = graph
        self._state = state
        self._ended = ended
        self._broken = broken
        self._inbox: deque[Arrival] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._steps: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._timers: dict[tuple[int, int, float], asyncio.TimerHandle] = {}
        self._deadline: asyncio.TimerHandle | None = None
        self._over = False

    def begin(self) -> None:
        """Set to work, once the start is durable."""
        self._arm_deadline()
        self._act()

    def resume(self, interrupted: list[Happening]) -> None:
        """Go on after a restart: the steps that were in flight are run again, timers are set again."""
        self._arm_deadline()
        for happening in interrupted:
            self.post(happening)
        if self._state.status == "stopping":
            self.post(Stopped())
        elif not interrupted:
            self.post(Continue())

    def post(self, happening: Happening) -> None:
        """Let something happen to the execution, whenever its turn comes."""
        self._inbox.append(Arrival(happening))
        self._wake()

    async def settle(self, happening: Happening, remember: Remember | None = None) -> bool:
        """Let something happen, and return when what follows from it is durable.

        False when the execution has ended before; then nothing was written, nor what `remember` makes.
        """
        if self._over:
            return False
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._inbox.append(Arrival(happening, done, remember))
        self._wake()
        return await done

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
            while self._inbox and not self._over:
                batch = list(self._inbox)
                self._inbox.clear()
                try:
                    await self._commit([item.happening for item in batch], [r.remember for r in batch if r.remember])
                except Exception as error:
                    self._give_up(batch, error)
                    return
                for item in batch:
                    item.tell(written=True)
                    self._forget(item.happening)
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
        for item in [*batch, *self._inbox]:
            if item.done is not None and not item.done.done():
                item.done.set_exception(error)
        self._over = True
        self._let_go()
        self._ended(self)
        if not isinstance(error, OwnershipLost):
            log.error("journal_failed", execution_id=self.execution.id, exc_info=error)
            self._broken(self)

    async def _commit(self, happenings: Sequence[Happening], remember: Sequence[Remember]) -> None:
        session: Mapping[str, Any] = {}
        if self._graph.session_aliases:
            async with self._around.db.read() as tx:
                session = await object_store.values(tx, self.execution.session_id, self._graph.session_aliases)

        async def beside(tx: Transaction, execution: Execution) -> Sequence[Settled]:
            return [make(execution) for make in remember]

        unit = self.unit(happenings, session, beside=beside if remember else None)
        if unit.records or unit.beside:
            await self._around.journal.append(unit)

    def unit(
        self,
        happenings: Sequence[Happening],
        session: Mapping[str, Any],
        *,
        beside: Beside | None = None,
        limit: int | None = None,
        then: Callable[[], None] | None = None,
    ) -> Unit:
        """What happenings lead to, to be made durable; then this takes it on, and calls `then`.

        `session` holds the session's objects that the graph touches.
        """
        now = self._around.clock().timestamp()
        turn = self._advance(happenings, now, session)

        def committed(execution: Execution) -> None:
            self._state, self.execution = turn.state, execution
            if then is not None:
                then()

        return Unit(
            execution=self._project(turn, now),
            graph=self._graph,
            fence=self.fence,
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

    def _project(self, turn: Turn, now: float) -> Execution:
        state = turn.state
        ended = state.ended
        return replace(
            self.execution,
            state=state.status,
            has_result=state.has_result,
            result=state.result,
            failure=state.error,
            last_sequence=self.execution.last_sequence + len(turn.records),
            end_time=datetime.fromtimestamp(now, UTC) if ended else None,
        )

    def _act(self) -> None:
        """Do what the durable state asks for: run steps, set timers, go on, or end."""
        if self._state.ended:
            self._over = True
            self._let_go()
            for item in self._inbox:
                item.tell(written=False)
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
