"""Scopes whose body is run more than once: which rounds begin, and when there are none any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.components.repeated import INDEX, STATE, Loop
from blobhub_server.workflow.interpreter.activation import BODY
from blobhub_server.workflow.interpreter.port_values import expression_context
from blobhub_server.workflow.interpreter.price import price_of_work
from blobhub_server.workflow.interpreter.scopes import Scopes


class Rounds(Scopes):
    """Begins the rounds of loops."""

    def _begin_attempt(self, step: int) -> None:
        component = self._scope_of(step)
        if isinstance(component, Loop):
            self._begin_round(step, component)
        else:
            super()._begin_attempt(step)

    def _go_on_with(self, step: int, number: int, held: Mapping[str, Any], ending: Mapping[str, Any]) -> None:
        component = self._scope_of(step)
        if not isinstance(component, Loop) or "error" in ending:
            super()._go_on_with(step, number, held, ending)
            return
        try:
            self._begin_round(step, component)
        except ComponentError as error:
            self._fail(step, error)

    def _begin_round(self, step: int, loop: Loop) -> None:
        """Begin the next round of a loop, or end it where its expression says so. Raises ComponentError."""
        about, scope = self._state.open[step], self._state.scopes[step]
        context = expression_context(self._graph, self._state, step, {})
        left = context.fuel.left
        names = {**context.names, STATE: scope.value, INDEX: scope.rounds}
        try:
            goes_on = loop.goes_on(about.inputs, replace(context, names=names))
        finally:
            self.budget -= price_of_work(left - context.fuel.left)
        if not goes_on:
            self._complete(step, Outcome(route="success", outputs={STATE: scope.value, "rounds": scope.rounds}), 0.0)
        elif scope.rounds >= self._state.step_limit:
            self._end_with("STEP_LIMIT", f"more than {self._state.step_limit} rounds of {about.component_id!r} were begun")
        else:
            self._begin(step, BODY, scope.rounds, {}, until=self._end_of_attempt(step))
