"""Drives one execution: the loop between deciding and performing.

A decision is journaled before it is performed: a component with outside effects starts after the commit that records its
entry. Happenings queue up while a commit is in flight and go into the next one together.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, TypeVar

import structlog

from blobhub_server.db.engine import Transaction
from blobhub_server.errors import LimitExceeded
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter import (
    BUDGET,
    Cancel,
    Command,
    Completion,
    Continue,
    ExecutionState,
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
from blobhub_server.workflow.rules.session_object import Reading
from blobhub_server.workflow.runtime.contract import StartWork
from blobhub_server.workflow.runtime.decision import Decision, Progress, happen, has_open, needs
from blobhub_server.workflow.runtime.embedded.arrival import Arrival, tell
from blobhub_server.workflow.runtime.embedded.caution import decide_with_caution
from blobhub_server.workflow.runtime.embedded.journal import OwnershipLost, TurnOutdated
from blobhub_server.workflow.runtime.embedded.runner_context import RunnerContext
from blobhub_server.workflow.runtime.embedded.underway import Underway
from blobhub_server.workflow.runtime.embedded.unit import Unit
from blobhub_server.workflow.runtime.rest import come_due, deadline
from blobhub_server.workflow.store import message as message_store
from blobhub_server.workflow.store.execution import LockedExecution

log = structlog.get_logger()

Value = TypeVar("Value")


class Runner:
    """Drives one execution until it ends here, or until another server has taken it.

    How far the execution has come is as of the last commit. `journaled` is the time of its last record, if it has any.
    `on_rest` is called whenever it does nothing any more but wait, and nothing has come that is not taken in.
    """

    def __init__(
        self,
        context: RunnerContext,
        graph: Graph,
        progress: Progress,
        on_end: Callable[[Runner], None],
        on_failure: Callable[[Runner, Exception], None],
        journaled: float = 0.0,
        on_rest: Callable[[Runner], None] = lambda _: None,
    ) -> None:
        self._context = context
        self._graph = graph
        self._progress = progress
        self._commands: Sequence[Command] = ()
        self._taken = 0
        self._on_end = on_end
        self._on_failure = on_failure
        self._on_rest = on_rest
        self._arrivals: deque[Arrival] = deque()
        self._messages: Sequence[Message] = ()
        self._pump: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._time = context.clock_of(progress, journaled)
        self._ahead = context.server_now() - self.now()
        self._underway = Underway(self, graph, context.performer, context.object_locks, context.memory)
        self._finished = False
        self._cautious = False
        self._counted = False

    @property
    def execution(self) -> Execution:
        """The execution as of the last commit."""
        return self._progress.execution

    @property
    def state_bytes(self) -> int:
        """What its state takes in memory."""
        return self._progress.state.holdings.bytes

    @property
    def rests(self) -> bool:
        """Whether it does nothing but wait, and nothing has come that is not taken in: then it may be abandoned."""
        idle = self._pump is None and not (self._arrivals or self._messages) and self._underway.is_idle
        return idle and self.execution.rests and not self._finished

    def begin(self) -> None:
        """Begin a new execution, once its start is durable, unless it was abandoned or has ended by now."""
        if self._finished:
            return
        self._arm_deadline()
        self._perform()
        self._tell_rest()

    def resume(self, *, cautious: bool = False) -> None:
        """Resume from the log: steps that were in flight are run again, and timers are set again.

        A cautious runner evaluates nothing before that has been counted once: a server may have ended of it before.
        """
        self._cautious = cautious
        self._context.memory.count(self.execution, self.state_bytes)
        self._arm_deadline()
        self.post(Continue())
        for command in todo(self._graph, self._progress.state, self.now()):
            match command:
                case RunStep(step=step):
                    self.post(Interrupted(step))
                case Wait():
                    self._underway.set_timer(command)

    def wake(self, *, cautious: bool) -> None:
        """Go on with an execution that has rested. What has come due meanwhile happens at once, in its order in time."""
        self._cautious = cautious
        self._context.memory.count(self.execution, self.state_bytes)
        due, waits = come_due(self._graph, self.execution, self._progress.state, self.now())
        for command in waits:
            self._underway.set_timer(command)
        if TimedOut() not in due:
            self._arm_deadline()
        for happening in (*due, Continue()):
            self.post(happening)

    async def settle(self) -> None:
        """Return when a cautious runner has journaled what was ready when it was resumed. Raises what kept it from that."""
        await self.post_and_wait(Continue())
        if self._counted:
            await self.post_and_wait(Continue())

    def post(self, happening: Happening) -> None:
        """Queue a happening."""
        self._arrivals.append(Arrival(happening))
        self._wake()

    def deliver(self, messages: Sequence[Message]) -> None:
        """Queue messages. Delivering a message again changes nothing."""
        known = {message.number: message for message in (*self._messages, *messages)}
        self._messages = [known[number] for number in sorted(known) if number > self.execution.last_message]
        if self._messages:
            self._wake()

    async def post_and_wait(self, happening: Happening) -> None:
        """Queue a happening; return when what follows from it is durable, the execution has ended, or it is abandoned.

        Raises what kept it from being stored.
        """
        if self._finished:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrivals.append(Arrival(happening, done))
        self._wake()
        await done

    def abandon(self) -> None:
        """Stop working on the execution and record nothing; another server, or the next start, resumes it."""
        self._finish()
        if self._pump is not None:
            self._pump.cancel()
        tell(self._arrivals)
        if self._pump is None:  # or a turn that is queued to be written may be decided again, on what it was decided on
            self._let_go()

    def _wake(self) -> None:
        if self._pump is None and not self._finished:
            self._pump = asyncio.create_task(self._run(), name=f"execution {self.execution.id}")

    async def _run(self) -> None:
        try:
            while (self._arrivals or self._messages) and not self._finished:
                await self._take(list(self._arrivals))
        finally:
            self._pump = None
        self._tell_rest()

    def _tell_rest(self) -> None:
        if self.rests:
            self._on_rest(self)

    async def _take(self, batch: Sequence[Arrival]) -> None:
        """Take a turn with what has arrived: all of it, or as much as a turn may take in."""
        self._arrivals.clear()
        try:
            await self._commit([item.happening for item in batch])
            batch, left = batch[: self._taken], batch[self._taken :]
            self._arrivals.extendleft(reversed(left))
        except Exception as error:
            self._give_up(batch, error)
            return
        finally:
            tell(batch)  # also when this is cancelled, because the execution is abandoned
        for item in batch:
            if isinstance(item.happening, Completion):
                self._underway.forget(item.happening)
        self.deliver(self._messages)
        self._perform()

    def _give_up(self, batch: Sequence[Arrival], error: Exception) -> None:
        """Stop driving the execution after a turn that was not stored; tell those who wait why.

        When another server has taken over, that is all. Else `on_failure` sees to it that the execution goes on from its
        log: what is in memory may be behind it, because a commit that failed may have been made.
        """
        tell([*batch, *self._arrivals], error)
        self._finish()
        self._let_go()
        self._on_end(self)
        if not isinstance(error, OwnershipLost):
            self._on_failure(self, error)

    async def _commit(self, happenings: Sequence[Happening]) -> None:
        """Decide on happenings and messages, and make it durable. Decide again when a message was committed meanwhile."""
        while True:
            await self._context.object_locks.wait(self.execution.session_id, self._graph.session_aliases, self.execution.id)
            needed = needs(self._graph, self._progress, happenings, self._messages)
            decide = partial(self._decide, happenings, self._messages)
            decision, objects = await self._decide_on(decide, needed)
            if not (decision.records or decision.messages or self._changes_row(decision) or self._starts_step(decision)):
                self._commands, self._taken = decision.commands, decision.taken
                return
            try:
                unit = Unit.of(decision, self._graph, decide, self._keep, self._fail_full, objects=objects, needs=needed)
                await self._context.journal.append(unit)
                return
            except TurnOutdated:
                self.deliver(await self._read(lambda tx: message_store.list_for_execution(tx, self.execution.id)))

    def _changes_row(self, decision: Decision) -> bool:
        """Whether the count of recoveries changes, or whether it rests."""
        after, before = decision.progress.execution, self.execution
        return after.recoveries != before.recoveries or after.rests != before.rests

    def _starts_step(self, decision: Decision) -> bool:
        """Whether a step is to be run that is not.

        The next attempt at a step has no record of its own, but must not be run by a server that has lost the execution.
        """
        return any(isinstance(item, RunStep) and not self._underway.is_run(item) for item in decision.commands)

    async def _read(self, query: Callable[[Transaction], Awaitable[Value]]) -> Value:
        """What a query finds, as soon as the database can be read."""

        async def read() -> Value:
            async with self._context.db.read() as tx:
                return await query(tx)

        return await self._context.db.trouble.outlasted(read)

    async def _decide_on(
        self, decide: Callable[[Mapping[str, Any]], Decision], needed: Sequence[Collection[str]]
    ) -> tuple[Decision, Reading]:
        """Decide on the session objects that the graph reads. Their etags are kept, and not the values, which are large."""
        take = partial(self._context.turns.take, (self.execution.organization_id, self.execution.actor_id))
        if not self._graph.session_reads:
            return await take(partial(decide, {})), Reading()
        async with self._reading(self._graph.session_reads, needed) as objects:
            return await take(partial(decide, objects.values)), Reading(etags=objects.etags)

    def _reading(self, aliases: Collection[str], needed: Sequence[Collection[str]]) -> AbstractAsyncContextManager[Reading]:
        return self._context.journal.objects.reading(self._read, self.execution, aliases, needed)

    async def read_objects(self, aliases: Collection[str]) -> Reading:
        """The session objects as they are now."""
        async with self._reading(aliases, [aliases]) as objects:
            return objects

    def has_open(self, step: int, failures: int, row: LockedExecution) -> bool | None:
        """Whether a try at a step is open in the execution, whose row is locked; None while this is behind its log."""
        place = row.fence, row.last_execution_sequence
        return False if self._finished else has_open(self._progress, step, failures, place)

    def start_unit(
        self,
        happening: Happening,
        objects: Reading,
        *,
        limit: int,
        work: StartWork | None,
        then: Callable[[], None],
        budget: int = BUDGET,
        decision: Decision | None = None,
    ) -> Unit:
        """The unit that starts a new execution, with a budget for its first turn, or its `decision`; `then` is called after
        its commit."""

        def keep(decision: Decision) -> None:
            self._keep(decision)
            then()

        decide = partial(self._decide, [happening], self._messages)
        decision = decision or decide(objects.values, budget)
        return Unit.of(decision, self._graph, decide, keep, self._fail_full, objects=objects, limit=limit, work=work)

    def _decide(
        self,
        happenings: Sequence[Happening],
        messages: Sequence[Message],
        session: Mapping[str, Any],
        budget: int = BUDGET,
    ) -> Decision:
        at = partial(happen, self._graph, self._progress, now=self.now(), ahead=self._ahead)
        decide = partial(at, session=session, messages=messages, budget=budget)
        try:
            if self._cautious and not self._counted:
                return decide_with_caution(partial(decide, budget=0), happenings, self.execution.recoveries)
            return decide(happenings)
        except Exception:
            log.exception("interpreter_failed", execution_id=self.execution.id)
            return decide([Failed("INTERNAL", "the execution could not go on")])

    def _keep(self, decision: Decision) -> None:
        self._progress, self._commands, self._taken = decision.progress, decision.commands, decision.taken
        if self._counted:  # What was ready has been evaluated, and the server lives; what follows begins from here.
            self._cautious = False
        self._counted = self.execution.recoveries > 0
        if self._finished:  # It was abandoned during the commit.
            return
        if self._context.memory.count(self.execution, decision.progress.state.holdings.bytes):
            self.post(Failed("STATE_LIMIT", "the executions of its organization take more memory together than they may"))

    def _fail_full(self, full: LimitExceeded) -> None:
        """Fail the execution: the logs of its organization have no room for what it goes on to log."""
        self.post(Failed("LOG_LIMIT", f"the logs of its organization are full: {full}"))

    def _perform(self) -> None:
        """Perform the commands of the last decision: run steps, set timers, go on, or end."""
        if self.execution.ended:
            self._finish()
            tell(self._arrivals)
            self._let_go()
            self._on_end(self)
            return
        if self._finished:  # It was abandoned while this turn was written: nothing of it is begun here.
            return
        for command in self._commands:
            match command:
                case RunStep():
                    self._underway.start(command)
                case Wait():
                    self._underway.set_timer(command)
                case Cancel(step=step):
                    self._underway.cancel_step(step)
                case GoOn():
                    self.post(Continue())
                case Halt():
                    self._cancel_all()
                    self.post(Stopped())

    def _arm_deadline(self) -> None:
        if self.execution.ended or (end := deadline(self.execution)) == math.inf:
            return
        self._deadline = asyncio.get_running_loop().call_later(max(0.0, end - self.now()), self.post, TimedOut())

    def _finish(self) -> None:
        """Take nothing in any more."""
        self._finished = True
        self._context.memory.forget(self.execution)
        self._cancel_all()

    def _let_go(self) -> None:
        """Let go of the state, which may take 64 MiB.

        A runner and steps that were cancelled lead to each other until a full collection of the garbage collector.
        """
        self._progress = Progress(self.execution, ExecutionState(step_limit=0))
        self._commands = ()
        self._arrivals.clear()
        self._underway.forget_all()

    def _cancel_all(self) -> None:
        self._underway.cancel()
        if self._deadline is not None:
            self._deadline.cancel()

    def now(self) -> float:
        """The unix time that the execution's timers go by."""
        return self._time.now()
