"""The interpreter: from a state and happenings it decides the next state, and the records that lead to it.

It is pure: no I/O, no clock, no randomness, no asyncio. Time and the session's values come in as arguments. Its decisions
are records, and only the fold of records changes the state. So replaying a log leads to the same state. The fold works on a
copy, so a decision can be thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blobhub_server.workflow.components.awaits import RECEIVED, Await, AwaitKind
from blobhub_server.workflow.components.contract import (
    ComponentError,
    ComponentKind,
    Outcome,
    PureComponent,
    require_result,
)
from blobhub_server.workflow.definitions.graph import Graph, Node
from blobhub_server.workflow.interpreter.activation import ROOT
from blobhub_server.workflow.interpreter.failure import not_done
from blobhub_server.workflow.interpreter.holdings import MAX_STATE_BYTES
from blobhub_server.workflow.interpreter.needs import needs_of_end, waiting_steps
from blobhub_server.workflow.interpreter.port_values import run_in_context
from blobhub_server.workflow.interpreter.price import BUDGET, price_of_entering, price_of_work
from blobhub_server.workflow.interpreter.records import (
    ChildEnded,
    Completion,
    Failed,
    Happening,
    Interrupted,
    Record,
    Signalled,
    Started,
    StepOutput,
    Stopped,
    StopRequested,
    TaskEnded,
    TimedOut,
)
from blobhub_server.workflow.interpreter.rounds import Rounds
from blobhub_server.workflow.interpreter.session_values import are_unread, beyond_reading, have_changed, writes_of
from blobhub_server.workflow.interpreter.size import MAX_LOG_BYTES
from blobhub_server.workflow.interpreter.state import ExecutionState
from blobhub_server.workflow.interpreter.turn import Turn

MAX_TOKENS = 10_000
"""How many tokens an execution has at most. A component can place as many as there are connections, at each of its steps."""


def advance(
    graph: Graph,
    state: ExecutionState,
    happenings: Sequence[Happening],
    *,
    now: float,
    session: Mapping[str, Any],
    budget: int = BUDGET,
    least: int = 1,
) -> Turn:
    """Take happenings in, one after the other; return what they lead to.

    The first `least` are taken in. Those after them are left for a turn to come once the budget is spent, or there have been
    `BUDGET` of them: the end of a step costs little, but ten thousand may end at once.

    `session` holds the session's objects that the graph touches, those that `needs` names at least; for others there may be
    an `Unread`. What comes to one of these is left for a turn to come. When the turn's state is `runnable`, there is more to
    do: let Continue happen. Happenings to an execution or a step that has ended are ignored.
    """
    turn = Turn(state=state.copy(), session=dict(session))
    taking = _Taking(graph, turn, now, budget)
    for happening in happenings:
        if turn.taken >= least and (taking.budget <= 0 or turn.taken >= BUDGET):
            break
        if turn.taken and taking.lacks(happening):
            break
        taking.take(happening)
        taking.go_on()
        turn.taken += 1
    turn.spent = budget - taking.budget
    return turn


class _Taking(Rounds):
    """Takes happenings into a turn."""

    def lacks(self, happening: Happening) -> bool:
        """Whether it ends a step that rests on session objects which were not read for this turn."""
        if not self._graph.session_reads or not isinstance(happening, Completion):
            return False
        return are_unread(needs_of_end(self._graph, self._state, happening.step), self._session)

    def take(self, happening: Happening) -> None:
        """Emit the records that the happening itself leads to."""
        state = self._state
        if state.ended:
            return
        match happening:
            case Started(input_data) if state.phase == "pending":
                self._emit("flow.entered", private={"input_data": dict(input_data)})
            case Completion() | TaskEnded() | ChildEnded() if completion := self._current_completion(happening):
                self._turn.touched.add(completion.step)
                self._take_completion(completion, happening.awaits if isinstance(happening, ChildEnded) else None)
            case StepOutput(step, value, printed) if self._current(step):
                self._emit("processor.output", step, {"printed": printed} if printed else {"value": value})
            case Signalled() if state.phase == "running":
                self._take_signal(happening)
            case Interrupted(step) if self._current(step):
                self._interrupt(step)
            case StopRequested() if state.phase != "stopping":
                self._stop()
            case Stopped() if state.phase == "stopping" and not state.running:
                self._emit("flow.stopped")
            case TimedOut() if state.phase != "stopping":
                self._time_out()
            case Failed() if state.phase == "stopping":
                self._emit("flow.stopped")  # Whoever asked for the stop was told that it ends like this.
            case Failed(reason, message):
                self._end_with(reason, message)
            case _:
                pass

    def go_on(self) -> None:
        """Evaluate what is ready; end the execution when nothing is left."""
        state = self._state
        while state.phase == "running" or state.running:
            if state.tokens > MAX_TOKENS:
                self._end_with("TOKEN_LIMIT", f"there are more than {MAX_TOKENS} tokens: control was passed on too often")
            elif state.logged > MAX_LOG_BYTES:
                self._end_with("LOG_LIMIT", f"the log has more than {MAX_LOG_BYTES} bytes")
            elif state.holdings.bytes > MAX_STATE_BYTES:
                self._end_with("STATE_LIMIT", f"its values take more than {MAX_STATE_BYTES} bytes in memory")
            elif state.quiet and (self.budget > 0 or ROOT in state.quiet):
                self.budget -= 1
                self._settle(ROOT if ROOT in state.quiet else next(iter(state.quiet)))
            elif state.ready and self.budget > 0:
                if not self._first and self._is_unread(self._graph.components[state.ready[0][0]]):
                    return
                self.budget -= price_of_entering(state.tokens, marks=self._graph.has_first_joins)
                self._enter()
            else:
                return

    def _is_unread(self, node: Node) -> bool:
        """Whether a component rests on session objects that were not read for this turn."""
        return bool(node.session_needs) and are_unread(node.session_needs, self._session)

    def _enter(self) -> None:
        state, self._first = self._state, False
        component_id, _, _, number = state.ready[0]
        if state.activations[number].entered >= state.step_limit:
            self._end_with("STEP_LIMIT", f"more than {state.step_limit} components were entered")
            return
        node = self._graph.components[component_id]
        step = state.steps + 1
        beyond = bool(node.session_needs) and self._is_unread(node)
        read = self._read_session(node.session_reads) if node.session_reads and not beyond else {}
        record = Record(
            type="processor.entered",
            at=self._now,
            step=step,
            attempt=1,
            component_id=node.id,
            activation=number,
            public={"attempt": 1},
            private={"session": read} if read else {},
        )
        self._append(record)
        if beyond:
            self._note_reads(node.session_needs)
            self._fail(step, beyond_reading(node.session_needs))
            return
        if node.kind is ComponentKind.JOIN:
            self._complete(step, Outcome(route="next"), 0.0)
            return
        try:
            self._evaluate(node, step, read)
        except ComponentError as error:
            self._fail(step, error)

    def _evaluate(self, node: Node, step: int, session: Mapping[str, Any]) -> None:
        """Run what can be run in place. Raises ComponentError."""
        about = self._state.open[step]
        inputs, evaluated = about.inputs, about.evaluated
        if evaluated is not None:
            self.budget -= price_of_work(evaluated.work)
            evaluated.require_values()
        for name in node.required:
            if name not in inputs:
                raise ComponentError(f"the input {name!r} has no value", reason="MISSING_INPUT", retryable=False)
        if node.kind is ComponentKind.SCOPE:
            self._begin_attempt(step)
        elif node.kind is ComponentKind.PURE or node.kind is ComponentKind.TASK:
            # To ask an abstract class what its instances are takes longer than to run most of them.
            component: PureComponent = node.implementation  # type: ignore[assignment]
            try:
                if node.references or evaluated:
                    result = require_result(run_in_context(self._graph, self._state, step, component, session), inputs)
                else:
                    result = require_result(component.run(inputs), inputs)
            except ComponentError as error:
                self.budget -= price_of_work(error.work)
                raise
            except Exception:
                raise ComponentError("cannot work on these inputs", reason="INVALID_INPUT", retryable=False) from None
            if isinstance(result, Outcome):
                self.budget -= price_of_work(result.work)
            self._end_await(step, result, 0.0)

    def _current_completion(self, ended: Completion | TaskEnded | ChildEnded) -> Completion | None:
        """What a happening is to the step that it ends, if that is open, and at that attempt."""
        step = self._state.open.get(ended.step)
        if step is None or not self._state.running:
            return None
        if isinstance(ended, ChildEnded):
            current, completion = step.failures == ended.failures, ended.completion(step.attempt)
        else:
            current, completion = step.attempt == ended.attempt, ended if isinstance(ended, Completion) else ended.completion
        return completion if current else None

    def _take_completion(self, completion: Completion, awaits: Await | None = None) -> None:
        """End what a step waited for; or leave the step open, to be run again, because of what its run has read.

        `awaits` is what it waited for, where that may have come before the step's run has said so; it is recorded then.
        """
        if awaits is not None and not awaits.same_as(self._state.open[completion.step].awaits):
            self._emit("processor.waiting", completion.step, {"await": awaits.to_json(), "until": None})
        step, result, read = self._state.open[completion.step], completion.result, completion.session
        node = self._graph.components[step.component_id]
        if read is not None and isinstance(result, Outcome) and any(writes_of(node, result.outputs, "session")):
            aliases = node.reread
            self._note_reads(aliases)
            if are_unread(aliases, self._session):
                self._fail(completion.step, beyond_reading(aliases))
                return
            if have_changed(aliases, read, self._session):
                return
            read = read if have_changed(aliases, read, step.session) else None
        self._end_await(completion.step, result, completion.elapsed, read)

    def _end_await(
        self,
        step: int,
        result: Outcome | Await | ComponentError | None,
        elapsed: float,
        read: Mapping[str, Any] | None = None,
    ) -> None:
        """End what a step waited for. When the time of the next attempt has come it is run, without a record."""
        awaits = self._state.open[step].awaits
        match result:
            case Outcome():
                self._complete(step, result, elapsed, read)
            case Await(until=until) if until is not None and until <= self._now:
                self._complete(step, Outcome(route=result.expiry), elapsed)
            case Await():
                self._emit("processor.waiting", step, {"await": result.to_json(), "until": result.end(self._now)})
                if (signal := self._state.signals.find(result)) is not None:
                    self._end_await(step, Outcome(route=RECEIVED, outputs={"value": signal.value}), elapsed)
            case ComponentError():
                self._fail(step, result)
            case None if step in self._state.scopes:
                self._wake_scope(step)
            case None if awaits is not None and awaits.kind in (AwaitKind.TASK, AwaitKind.CHILD):
                self._fail(step, not_done(awaits))
            case None if awaits is not None and awaits.kind is not AwaitKind.ATTEMPT:
                self._complete(step, Outcome(route=awaits.expiry), elapsed)
            case None if self._node(step).kind is ComponentKind.TASK:
                self._evaluate(self._node(step), step, self._state.open[step].session)

    def _take_signal(self, signal: Signalled) -> None:
        """End the first step that waits for a signal. While none does, the signal is kept."""
        waits = next(waiting_steps(self._state, signal.name, signal.key), None)
        if waits is not None:
            self._end_await(waits, Outcome(route=RECEIVED, outputs={"value": signal.value}), 0.0)
            return
        public = {"name": signal.name, "key": signal.key}
        self._emit("flow.signalled", public=public, private={"signal": {"value": signal.value}, "size": signal.size_bytes})
