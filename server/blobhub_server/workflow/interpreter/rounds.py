"""Scopes whose body is run more than once: which rounds begin, and when there are none any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from blobhub_server.blobtypes import json_text
from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.components.each import Each
from blobhub_server.workflow.components.repeated import INDEX, STATE, Loop
from blobhub_server.workflow.interpreter.activation import BODY
from blobhub_server.workflow.interpreter.ending import failed
from blobhub_server.workflow.interpreter.failure import failure
from blobhub_server.workflow.interpreter.port_values import expression_context
from blobhub_server.workflow.interpreter.price import price_of_bytes, price_of_work
from blobhub_server.workflow.interpreter.scopes import Scopes
from blobhub_server.workflow.interpreter.tally import Tally

_CANCELLED = failure("ITEM_CANCELLED", "more items have failed than may, or all took too long")
_CLOSING = {**failed(_CANCELLED, again=False), "closing": True}
"""How an item ends that is given up with its scope."""


class Rounds(Scopes):
    """Begins the rounds of loops, and the items of scopes that run their body for each."""

    def _begin_attempt(self, step: int) -> None:
        match self._scope_of(step):
            case Loop() as loop:
                self._begin_round(step, loop)
            case Each() as each:
                self._begin_items(step, each)
            case _:
                super()._begin_attempt(step)

    def _go_on_with(self, step: int, number: int, held: Mapping[str, Any], ending: Mapping[str, Any]) -> None:
        match self._scope_of(step):
            case Loop() as loop if "error" not in ending:
                try:
                    self._begin_round(step, loop)
                except ComponentError as error:
                    self._fail(step, error)
            case Each() as each:
                self._go_on_with_items(step, each, ending)
            case _:
                super()._go_on_with(step, number, held, ending)

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

    def _begin_items(self, step: int, each: Each) -> None:
        """Begin the first items. Raises ComponentError."""
        plan = each.plan(self._state.open[step].inputs)
        if not plan.count:
            self._complete(step, Outcome(route="success", outputs=Tally.of(plan).outputs(plan)), 0.0)
            return
        until = self._end_of_attempt(step)
        for number in range(min(plan.concurrency, plan.count)):
            self._begin(step, BODY, number, {}, until=until)

    def _about_round(self, step: int, ending: Mapping[str, Any]) -> dict[str, Any]:
        """Of an item, the size of its result; or how the scope ends because of it, once no item is run any more."""
        each, scope = self._scope_of(step), self._state.scopes[step]
        if not isinstance(each, Each) or scope.after is not None:
            return {}
        tally, plan = scope.tally, each.plan(self._state.open[step].inputs)
        assert tally is not None
        if "error" in ending:
            if not ending.get("late") and tally.failed < plan.tolerated:
                return {}
            return {"after": {"error": ending["error"], "again": bool(ending.get("again"))}}
        if not plan.keeps_results or "value" not in ending:
            return {}
        text = json_text.write(ending["value"])
        self.budget -= price_of_bytes(len(text), 0)
        size = (len(text.encode()), json_text.measure(text)[0])
        if why := tally.beyond(size, text):
            id_ = self._state.open[step].component_id
            error = failure("RESULT_LIMIT", f"the results of {id_!r} are more than a value may be: {why}", component_id=id_)
            return {"after": {"error": error, "again": False}}
        return {"size": size}

    def _go_on_with_items(self, step: int, each: Each, ending: Mapping[str, Any]) -> None:
        """Go on after an item has ended: with the next, or with the end of all."""
        scope = self._state.scopes[step]
        if scope.after is not None:
            if not ending.get("closing"):
                self._close_items(scope.live)
            self._end_closed(step)
            return
        plan = each.plan(self._state.open[step].inputs)
        if scope.rounds < plan.count:
            self._begin(step, BODY, scope.rounds, {})
        elif not scope.live:
            assert scope.tally is not None
            self._complete(step, Outcome(route="success", outputs=scope.tally.outputs(plan)), 0.0)

    def _close_items(self, live: Sequence[int]) -> None:
        """Give up the items that are still run. Where one has a `finally` to run, that is waited for."""
        for number in live:
            if number in self._state.activations:
                self._leave(number, _CLOSING)

    def _end_closed(self, step: int) -> None:
        """End a scope whose items are given up, once none is run any more, unless that has happened."""
        scope = self._state.scopes.get(step)
        if scope is None or scope.after is None or scope.live:
            return
        error, again = dict(scope.after["error"]), bool(scope.after["again"])
        if not self._tries_again(step, error, again=again):
            self._give_up(step, error, again=again)

    def _leave_late(self, step: int, live: Sequence[int], ending: Mapping[str, Any]) -> None:
        if not isinstance(self._scope_of(step), Each):
            super()._leave_late(step, live, ending)
            return
        for number in live:  # Of an `each`, the first to end has all others given up.
            if number in self._state.activations and self._state.activations[number].ending is None:
                self._leave(number, {**ending, "late": True})
