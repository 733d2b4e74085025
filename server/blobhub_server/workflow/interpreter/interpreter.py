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
from blobhub_server.workflow.interpreter.failure import FAILED_BY_ROUTE, cut, failure, failure_of, is_lost, leads_nowhere
from blobhub_server.workflow.interpreter.holdings import MAX_STATE_BYTES
from blobhub_server.workflow.interpreter.needs import needs_of_end, waiting_steps
from blobhub_server.workflow.interpreter.port_values import run_in_context
from blobhub_server.workflow.interpreter.price import BUDGET, price_of_entering, price_of_work
from blobhub_server.workflow.interpreter.records import (
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
    TimedOut,
)
from blobhub_server.workflow.interpreter.session_values import are_unread, beyond_reading, have_changed, writes_of
from blobhub_server.workflow.interpreter.size import MAX_LOG_BYTES
from blobhub_server.workflow.interpreter.state import ExecutionState
from blobhub_server.workflow.interpreter.turn import Turn, TurnMaker

MAX_TOKENS = 10_000
"""How many tokens an execution has at most. A component can place as many as there are connections, at each of its steps."""
_INTERRUPTED = ComponentError("the server went down under the step", reason="INTERRUPTED")


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


class _Taking(TurnMaker):
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
            case Completion(step, attempt) if self._current(step, attempt):
                self._turn.touched.add(step)
                self._take_completion(happening)
            case StepOutput(step, value, printed) if self._current(step):
                self._emit("processor.output", step, {"printed": printed} if printed else {"value": value})
            case Signalled(name, key, value) if (waits := next(waiting_steps(state, name, key), None)) is not None:
                self._end_await(waits, Outcome(route=RECEIVED, outputs={"value": value}), 0.0)
            case Interrupted(step) if self._current(step):
                self._interrupt(step)
            case StopRequested() if state.phase != "stopping":
                self._emit("flow.stopping")
            case Stopped() if state.phase == "stopping":
                self._emit("flow.stopped")
            case TimedOut() if state.phase != "stopping":
                self._end_with("TIMEOUT", "the execution took longer than it may")
            case Failed() if state.phase == "stopping":
                self._emit("flow.stopped")  # Whoever asked for the stop was told that it ends like this.
            case Failed(reason, message):
                self._end_with(reason, message)
            case _:
                pass

    def go_on(self) -> None:
        """Evaluate what is ready; end the execution when nothing is left."""
        state = self._state
        while state.phase == "running":
            if state.tokens > MAX_TOKENS:
                self._end_with("TOKEN_LIMIT", f"there are more than {MAX_TOKENS} tokens: control was passed on too often")
            elif state.logged > MAX_LOG_BYTES:
                self._end_with("LOG_LIMIT", f"the log has more than {MAX_LOG_BYTES} bytes")
            elif state.holdings.bytes > MAX_STATE_BYTES:
                self._end_with("STATE_LIMIT", f"its values take more than {MAX_STATE_BYTES} bytes in memory")
            elif state.ready and self.budget > 0:
                if not self._first and self._is_unread(self._graph.components[state.ready[0][0]]):
                    return
                self.budget -= price_of_entering(state.tokens, marks=self._graph.has_first_joins)
                self._enter()
            elif state.ready or state.open:
                return
            elif state.tokens:
                self._end_with("JOIN_STARVED", state.joins.starved(self._graph))
            else:
                self._finish()

    def _is_unread(self, node: Node) -> bool:
        """Whether a component rests on session objects that were not read for this turn."""
        return bool(node.session_needs) and are_unread(node.session_needs, self._session)

    def _enter(self) -> None:
        state, self._first = self._state, False
        if state.steps >= state.step_limit:
            self._end_with("STEP_LIMIT", f"more than {state.step_limit} components were entered")
            return
        node = self._graph.components[state.ready[0][0]]
        step = state.steps + 1
        beyond = bool(node.session_needs) and self._is_unread(node)
        read = self._read_session(node.session_reads) if node.session_reads and not beyond else {}
        record = Record(
            type="processor.entered",
            at=self._now,
            step=step,
            attempt=1,
            component_id=node.id,
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
        if node.kind is ComponentKind.PURE:
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

    def _take_completion(self, completion: Completion) -> None:
        """End what a step waited for; or leave the step open, to be run again, because of what its run has read."""
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
            case Await():
                until = None if result.seconds is None else self._now + result.seconds
                self._emit("processor.waiting", step, {"await": result.to_json(), "until": until})
            case ComponentError():
                self._fail(step, result)
            case None if awaits is not None and awaits.kind is not AwaitKind.ATTEMPT:
                self._complete(step, Outcome(route=awaits.expiry), elapsed)

    def _complete(self, step: int, outcome: Outcome, elapsed: float, read: Mapping[str, Any] | None = None) -> None:
        node = self._node(step)
        if not outcome.terminal and is_lost(node, outcome.route):
            self._fail(step, leads_nowhere(node, outcome.route))
            return
        outputs = dict(outcome.outputs)
        if outcome.route == "failure" and "failure" in node.control:
            error = ComponentError(FAILED_BY_ROUTE)
            outputs.setdefault("error", failure_of(node.id, self._state.open[step].attempt, error))
        try:
            objects = self._apply_writes(node, outputs) if node.writes else {}
        except ComponentError as error:
            self._fail(step, error)
            return
        public = {"route": outcome.route, "elapsed": elapsed}
        private = {"outputs": outputs} if outputs else {}
        if read is not None:  # The run was given other session objects than the step was entered with.
            private["session"] = dict(read)
        self._emit("processor.exited", step, public, private)
        self._write(objects)
        if outcome.terminal:
            self._finish()
        elif outcome.route == "failure" and "failure" not in node.control:
            self._end_with("UNHANDLED_FAILURE", f"component {node.id!r} ended with `failure`, which leads nowhere")

    def _fail(self, step: int, error: ComponentError) -> None:
        node, about = self._node(step), self._state.open[step]
        told = failure_of(node.id, about.attempt, error)
        retry = node.policy.retry
        again = error.retryable and retry.takes(error.reason)
        failures = about.failures + 1
        if node.kind is ComponentKind.EFFECT and again and failures < retry.maximum_attempts:
            self._retry(step, told, retry.wait(failures, error.retry_after))
            return
        handled, objects = "failure" in node.control, dict[str, Any]()
        if handled and "error" in node.writes:
            try:
                objects = self._apply_writes(node, {"error": told})
            except ComponentError as unwritten:  # Nobody can handle an error that is not where it is looked for.
                told, handled = failure_of(node.id, about.attempt, unwritten), False
        private = {"outputs": {"error": told}} if handled else {}
        self._emit("processor.error", step, {"error": told, "attempt": about.attempt}, private)
        self._write(objects)
        if not handled:
            self._end_with_failure_of(told)

    def _interrupt(self, step: int) -> None:
        """Try the attempt again that a server went down under, however many there were, unless the policy forbids it."""
        if "INTERRUPTED" in self._node(step).policy.retry.non_retryable_reasons:
            self._fail(step, _INTERRUPTED)
        else:
            about = self._state.open[step]
            self._retry(step, failure_of(about.component_id, about.attempt, _INTERRUPTED), 0.0, interrupted=True)

    def _retry(self, step: int, error: dict[str, Any], wait: float, *, interrupted: bool = False) -> None:
        public = {"attempt": self._state.open[step].attempt + 1, "error": error, "until": self._now + wait}
        self._emit("processor.retrying", step, public, {"interrupted": True} if interrupted else None)

    def _finish(self) -> None:
        public: dict[str, Any] = {"steps": self._state.steps}
        if self._state.has_result:
            public["result"] = self._state.result
        self._emit("flow.exited", public=public)

    def _end_with(self, reason: str, message: str) -> None:
        self._emit("flow.error", public={"error": failure(reason, message)})

    def _end_with_failure_of(self, told: Mapping[str, Any]) -> None:
        """Fail the execution with the error of a component."""
        message = f"component {told['component_id']!r} failed: {told['message']}"
        self._emit("flow.error", public={"error": {**told, "message": cut(message)}})
