"""How steps end: with an outcome, or with an error, which is tried again, handled, or fails what the step is in."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from blobhub_server.workflow.components.contract import TRIED_AGAIN, ComponentError, Outcome
from blobhub_server.workflow.definitions.graph import END
from blobhub_server.workflow.interpreter.activation import ROOT
from blobhub_server.workflow.interpreter.failure import FAILED_BY_ROUTE, failure, failure_of, is_lost, leads_nowhere
from blobhub_server.workflow.interpreter.turn import TurnMaker

_INTERRUPTED = ComponentError("the server went down under the step", reason="INTERRUPTED")


def failed(told: Mapping[str, Any], *, again: bool) -> dict[str, Any]:
    """How an activation ends that fails; `again` says whether another attempt may help."""
    return {"as": "error", "error": told, "again": again}


class Ending(TurnMaker):
    """Ends steps."""

    @abstractmethod
    def _leave(self, number: int, ending: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> None:
        """Leave an activation; see `scopes.py`."""

    def _complete(self, step: int, outcome: Outcome, elapsed: float, read: Mapping[str, Any] | None = None) -> None:
        node, number = self._node(step), self._state.open[step].activation
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
        given = {"value": outputs["value"]} if node.type == END and "value" in outputs else {}
        if outcome.terminal:
            self._leave(ROOT, {"as": "exit"}, given)
        elif node.type == END and number != ROOT:
            self._leave(number, {"as": "end"}, given)
        elif outcome.route == "failure" and "failure" not in node.control:
            message = f"component {node.id!r} ended with `failure`, which leads nowhere"
            self._leave(number, failed(failure("UNHANDLED_FAILURE", message), again=True))

    def _fail(self, step: int, error: ComponentError) -> None:
        """Try a step again, or have it end with an error."""
        about = self._state.open[step]
        told = failure_of(about.component_id, about.attempt, error)
        again = error.retryable and self._node(step).kind in TRIED_AGAIN
        if not self._tries_again(step, told, again=again, after=error.retry_after):
            self._give_up(step, told, again=error.retryable)

    def _tries_again(self, step: int, told: dict[str, Any], *, again: bool, after: float = 0.0) -> bool:
        """Try a step again, if its policy has it; `after` is how long it is to wait at least."""
        retry, failures = self._node(step).policy.retry, self._state.open[step].failures + 1
        if not again or not retry.takes(told["reason"]) or failures >= retry.maximum_attempts:
            return False
        self._retry(step, told, retry.wait(failures, after))
        return True

    def _give_up(self, step: int, told: dict[str, Any], *, again: bool) -> None:
        """End a step with an error: its route `failure` handles it, or the activation that it is in fails."""
        node, about = self._node(step), self._state.open[step]
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
            self._leave(about.activation, failed(told, again=again))

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
